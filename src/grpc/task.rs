//! `TaskService`: orchestrators open tasks and signal their end.

use brevet_api::v1;
use brevet_api::v1::task_service_server::TaskService;
use brevet_core::fact::Outcome;
use tonic::{Request, Response, Status};

use super::convert;
use super::door::{Asked, Door};
use crate::broker::{Ended, Refusal};

pub(super) struct Tasks(pub(super) Door);

#[tonic::async_trait]
impl TaskService for Tasks {
    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        let caller = self.0.caller(&request, "CreateTask")?;
        let message = request.into_inner();
        let asked = Asked::method("CreateTask").by(&message.request_id);
        let outcome = match convert::task::task_ask(message) {
            Ok(ask) => self.0.broker.create_task(&caller, ask).await.map(convert::task::opened),
            Err(refusal) => Err(refusal),
        };
        self.0.answer(&caller, &asked, outcome)
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let caller = self.0.caller(&request, "GetTask")?;
        let message = request.into_inner();
        let asked = Asked::method("GetTask").of(&message.name);
        let outcome = match convert::task_name("name", &message.name) {
            Ok(task) => self.0.broker.get_task(&caller, task).await.map(|view| convert::task::task(&view)),
            Err(refusal) => Err(refusal),
        };
        self.0.answer(&caller, &asked, outcome)
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let caller = self.0.caller(&request, "ListTasks")?;
        let message = request.into_inner();
        let outcome = match convert::task::task_filter(&message, self.0.page_size_max()) {
            Ok(filter) => {
                let limit = filter.limit;
                self.0
                    .broker
                    .list_tasks(&caller, filter)
                    .await
                    .map(|views| convert::task::page(&views, limit))
            }
            Err(refusal) => Err(refusal),
        };
        self.0.answer(&caller, &Asked::method("ListTasks"), outcome)
    }

    async fn complete_task(
        &self,
        request: Request<v1::CompleteTaskRequest>,
    ) -> Result<Response<v1::CompleteTaskResponse>, Status> {
        let caller = self.0.caller(&request, "CompleteTask")?;
        let v1::CompleteTaskRequest { name, reason } = request.into_inner();
        let outcome = self.end(&caller, &name, &reason, Outcome::Completed, "completed").await;
        let asked = Asked::method("CompleteTask").of(&name);
        self.0.answer(&caller, &asked, outcome.map(|ended| convert::task::complete(&ended)))
    }

    async fn fail_task(
        &self,
        request: Request<v1::FailTaskRequest>,
    ) -> Result<Response<v1::FailTaskResponse>, Status> {
        let caller = self.0.caller(&request, "FailTask")?;
        let v1::FailTaskRequest { name, reason } = request.into_inner();
        let outcome = self.end(&caller, &name, &reason, Outcome::Failed, "failed").await;
        let asked = Asked::method("FailTask").of(&name);
        self.0.answer(&caller, &asked, outcome.map(|ended| convert::task::fail(&ended)))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let caller = self.0.caller(&request, "CancelTask")?;
        let v1::CancelTaskRequest { name, reason } = request.into_inner();
        let outcome = self.end(&caller, &name, &reason, Outcome::Cancelled, "cancelled").await;
        let asked = Asked::method("CancelTask").of(&name);
        self.0.answer(&caller, &asked, outcome.map(|ended| convert::task::cancel(&ended)))
    }
}

impl Tasks {
    async fn end(
        &self,
        caller: &brevet_core::proof::Caller,
        name: &str,
        reason: &str,
        outcome: Outcome,
        default_reason: &'static str,
    ) -> Result<Ended, Refusal> {
        let task = convert::task_name("name", name)?;
        let reason = convert::reason(reason, default_reason)?;
        self.0.broker.end_task(caller, task, outcome, reason).await
    }
}
