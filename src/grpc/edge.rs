//! The edge: what stands before every method. Here a request gets its caller, and is refused before anything is done for
//! it if there is too much, if it is no request, or if nobody calls.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use brevet_core::fact::{DeniedOperation, ReasonCode};
use brevet_core::name::TenantName;
use brevet_core::proof::Caller;
use brevet_core::sabotage;
use brevet_core::spiffe_id::SpiffeId;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::body::{NotWhole, pass_over, whole};
use super::class::{self, CHECK, Class};
use super::comebacks::Comebacks;
use super::deadline;
use super::door::Door;
use super::load::Load;
use super::peer::Peer;
use super::rates::Rates;
use super::status;
use super::token_caller::{BOUND_ELSEWHERE, Shown};
use super::unread::{
    AMBIGUOUS, NO_SUCH_METHOD, TIMEOUT_MALFORMED, TOO_LARGE, TOO_LATE, Unread, not_understood,
    refused_unread, retain_what_is_read,
};
use crate::broker::Refusal;
use crate::config::CallLimits;
use crate::net::{Endless, LocalPeer, ReservedThreads};
use crate::shares::{Full, Share, Shares};
use crate::threads::run_on;

/// The bytes before a message that say how long it is (gRPC over HTTP/2, Length-Prefixed-Message).
const FRAME_HEAD: usize = 5;

/// What the record says where the caller's text names no method.
const NO_METHOD: &str = "unknown";

/// What stands before every method.
pub(super) struct Edge {
    door: Door,
    limits: CallLimits,
    everybody: Handle,
    load: Load,
    rates: Rates,
    comebacks: Comebacks,
    comebacks_of_strangers: Comebacks,
    unfinished_of_callers: Arc<Shares>,
    unfinished_of_tenants: Arc<Shares<Option<TenantName>>>,
}

/// A message of which a part has come, as one of its caller's and one of its tenant's.
type Unfinished = (Share, Share<Option<TenantName>>);

/// Who calls.
enum Who {
    /// Somebody at the local root socket.
    Root { uid: u32 },
    /// A workload.
    Known(Arc<Caller>),
    /// Nobody that is known, who asks what anybody may.
    Nobody,
}

/// What is called.
struct Call<'a> {
    class: Class,
    method: &'a str,
    /// The time since boot at which it is too late for an answer.
    until: Duration,
}

impl Edge {
    pub(super) fn new(door: Door, limits: CallLimits, everybody: &Handle) -> Self {
        let of_all = &door.broker.limits;
        let (calls, issues) = (of_all.calls_in_flight_max(), of_all.issues_at_once_max());
        Self {
            limits,
            everybody: everybody.clone(),
            load: Load::new(calls, issues, of_all.tokens_at_once()),
            rates: Rates::new(of_all.calls_of_callers(), of_all.callers_remembered_max()),
            comebacks: Comebacks::new(of_all.retry_delays()),
            comebacks_of_strangers: Comebacks::new(of_all.retry_delays()),
            unfinished_of_callers: Shares::new(of_all.calls_unfinished_of_callers()),
            unfinished_of_tenants: Shares::new(of_all.calls_unfinished_of_tenants()),
            door,
        }
    }

    /// Answers in time, in its turn, and for the methods where none of them did.
    pub(super) async fn answer(self: Arc<Self>, mut request: Request, next: Next) -> Response {
        let (class, method) = Class::of(request.uri().path()).unwrap_or((Class::Read, NO_METHOD));
        if sabotage::on("secrets_are_logged") {
            tracing::debug!(headers = ?request.headers(), path = request.uri().path(), "a request");
        }
        let asked = deadline::of(request.headers());
        let CallLimits { call_max, .. } = self.limits;
        let max = asked.as_ref().ok().copied().flatten().map_or(call_max, |asked| asked.min(call_max));
        let call = Call { class, method, until: self.door.broker.clock.since_boot() + max };
        let who = match self.let_in(&mut request, &call).await {
            Ok(who) => who,
            Err(refused) => {
                self.pass_over(&call, request.into_body()).await;
                return *refused;
            }
        };
        // In time, whatever the caller sends or fails to send; and no longer than the caller waits.
        let answered = match asked {
            Err(deadline::Malformed) => Err(TIMEOUT_MALFORMED),
            Ok(Some(Duration::ZERO)) => Err(TOO_LATE),
            Ok(_) => {
                let answering = self.in_turn(&who, &call, request, next);
                timeout(self.left(&call), answering).await.map_err(|_| TOO_LATE)
            }
        };
        let response = match answered {
            Ok(response) => response,
            Err(unread) => return self.refuse(&who, method, &unread).into_http(),
        };
        // What no method has answered is refused here.
        let Some(unread) = refused_unread(&response) else { return response };
        // It has the name of a method that is not on this listener.
        let method = if unread.code == Code::Unimplemented { NO_METHOD } else { method };
        self.refuse(&who, method, &unread).into_http()
    }

    /// Whoever is answered before it has sent all is reset, and too many resets end the connection of a client that did
    /// nothing worse than to come too often, or with an old certificate. A stream has no end to wait for.
    async fn pass_over(&self, call: &Call<'_>, body: Body) {
        if !class::is_endless(call.method) && !sabotage::on("the_hasty_are_reset") {
            let time = self.left(call).min(self.limits.refused_max);
            let bytes_max = self.limits.message_bytes_max.saturating_add(FRAME_HEAD);
            let _in_time = timeout(time, pass_over(body, bytes_max)).await;
        }
    }

    /// Who calls, unless there is too much of it, it is no request of gRPC, or it is not for strangers.
    async fn let_in(&self, request: &mut Request, call: &Call<'_>) -> Result<Who, Box<Response>> {
        let refused = |status: Status| Box::new(status.into_http());
        // 1. Who it is, and whether it has not called too often.
        let shown = Shown::by(request);
        let peer: Option<&Peer> = request.extensions().get();
        let clock = &self.door.broker.clock;
        let who = match peer.map(|peer| (peer, peer.caller(clock.now().judge))) {
            Some((peer, Ok(caller))) => {
                let now = clock.since_boot();
                let allowance = peer.allowance(|| self.rates.of(caller.spiffe_id(), now));
                let taken = self.rates.take(allowance, call.class, now);
                taken.map_err(|wait| refused(self.called_too_often(caller.spiffe_id(), call, wait)))?;
                if shown.is_some() {
                    // Which of both would it be?
                    return Err(refused(self.refuse(&Who::Known(caller), call.method, &AMBIGUOUS)));
                }
                Ok(Who::Known(caller))
            }
            Some((_, Err(reason))) => match shown {
                Some(shown) => {
                    let (peer, caller) = self.by_token(shown, call).await.map_err(refused)?;
                    request.extensions_mut().insert(peer);
                    Ok(Who::Known(caller))
                }
                None if call.method == CHECK => Ok(Who::Nobody),
                None => Err(reason),
            },
            None => match request.extensions().get() {
                Some(LocalPeer { uid, .. }) => Ok(Who::Root { uid: *uid }),
                None => Err("no_connection"),
            },
        };
        // 2. Whether it is a request of gRPC.
        if let Some((http, unread)) = not_understood(request) {
            let status = match &who {
                Ok(who) => self.refuse(who, NO_METHOD, &unread),
                Err(reason) => self.door.stranger(NO_METHOD, reason),
            };
            let mut response = refused(status);
            *response.status_mut() = http;
            response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
            return Err(response);
        }
        // 3. Whether it is anybody, who calls something.
        match who {
            Err(reason) => Err(refused(self.door.stranger(call.method, reason))),
            Ok(who) if call.method == NO_METHOD => {
                Err(refused(self.refuse(&who, NO_METHOD, &NO_SUCH_METHOD)))
            }
            Ok(who) => Ok(who),
        }
    }

    /// The caller that a token proves, and the other end of its request.
    async fn by_token(&self, shown: Shown, call: &Call<'_>) -> Result<(Peer, Arc<Caller>), Status> {
        let connection = shown.connection().clone();
        // What can be seen before anything is known of its caller comes in turn, whoever calls for what.
        let looking = async {
            let _one_of_a_stranger = connection.turn().await;
            let admitted = self.load.admit_token(connection.is_on_probation()).await;
            let admitted = admitted.map_err(|_| self.too_much(None, call, "tokens_waiting_max"))?;
            let _turn = self.load.token_turn().await;
            let claimed =
                self.door.claimed(shown).map_err(|reason| self.door.stranger(call.method, reason))?;
            Ok::<_, Status>((admitted, claimed))
        };
        let looked = timeout(self.left(call), looking).await;
        let (_admitted, claimed) = looked.map_err(|_| {
            // It is told no more than that, and counted as the stranger's that it still is.
            let _told_otherwise = self.door.stranger(call.method, TOO_LATE.reason);
            TOO_LATE.status()
        })??;
        // From here on it is on record with the workload that the token names.
        let workload = claimed.workload().clone();
        let refuse = |refusal: Refusal| {
            let is_recorded = self.door.broker.refuse_unproven(&workload, call.method, &refusal.reason);
            if refusal.reason.as_str() == BOUND_ELSEWHERE {
                self.door.shown_with_another_key(&workload, is_recorded);
            }
            status::of(&refusal)
        };
        self.door.foresee(&claimed).map_err(refuse)?;
        let now = self.door.broker.clock.since_boot();
        let taken = self.rates.take(&self.rates.of(&workload, now), call.class, now);
        taken.map_err(|wait| self.called_too_often(&workload, call, wait))?;
        match timeout(self.left(call), self.door.bound(claimed)).await {
            Ok(bound) => bound.map_err(refuse),
            Err(_) => {
                let reason = ReasonCode::of(TOO_LATE.reason);
                self.door.broker.refuse_unproven(&workload, call.method, &reason);
                Err(TOO_LATE.status())
            }
        }
    }

    /// Has it answered when it is here as a whole, there is room for it and it is its turn.
    async fn in_turn(&self, who: &Who, call: &Call<'_>, request: Request, next: Next) -> Response {
        let caller = match who {
            // Whoever is at the local root socket pulls the emergency brake, which no load keeps out.
            Who::Root { .. } => return self.run(call, request, next).await,
            Who::Known(caller) => Some(caller.spiffe_id()),
            Who::Nobody => None,
        };
        // Streams have limits of their own, and no end, once they have begun.
        if class::is_endless(call.method) {
            let _unfinished = match self.unfinished(caller) {
                Ok(share) => share,
                Err(full) => return self.too_much(caller, call, full.limit).into_http(),
            };
            let mut response = self.run(call, request, next).await;
            response.extensions_mut().insert(Endless);
            return response;
        }
        let CallLimits { message_bytes_max, strangers_message_bytes_max, .. } = self.limits;
        let is_known = caller.is_some() || sabotage::on("strangers_send_like_callers");
        let bytes_max = if is_known { message_bytes_max } else { strangers_message_bytes_max };
        let bytes_max = bytes_max.saturating_add(FRAME_HEAD);
        // INVARIANT: whoever waits for its caller holds no place and no turn, or callers that send nothing would keep
        // out the others, and messages that wait for their turn would fill the window of those that have it.
        let (mut head, mut body) = request.into_parts();
        // Nothing reads them any more, and they may be long.
        retain_what_is_read(&mut head.headers);
        let whole = match whole(&mut body, bytes_max, || self.unfinished(caller)).await {
            Ok(whole) => whole,
            Err(NotWhole::Gone) => return Status::cancelled("the caller has gone").into_http(),
            Err(NotWhole::TooLarge) => return self.refuse(who, call.method, &TOO_LARGE).into_http(),
            Err(NotWhole::Full(full)) => {
                let refused = self.too_much(caller, call, full.limit);
                self.pass_over(call, body).await;
                return refused.into_http();
            }
        };
        let Ok(_in_flight) = self.load.admit(call.class) else {
            return self.too_much(caller, call, "calls_in_flight_max").into_http();
        };
        let _turn = self.load.turn(call.class).await;
        self.run(call, Request::from_parts(head, Body::from(whole)), next).await
    }

    /// Has the method answer. What is no stop is done by everybody's threads, so that nothing that takes long, or goes on,
    /// is in the way of the next stop (invariant R5).
    async fn run(&self, call: &Call<'_>, request: Request, next: Next) -> Response {
        let is_there = request.extensions().get::<ReservedThreads>().is_none();
        if is_there || call.class == Class::Revoke || sabotage::on("stoppers_do_all_there") {
            return next.run(request).await;
        }
        // Few calls come here, and none of the others is to carry what these need.
        let answered = Box::pin(run_on(&self.everybody, next.run(request))).await;
        answered.unwrap_or_else(|| Status::unavailable("the call broke off").into_http())
    }

    /// One more of a caller's messages of which a part has come.
    fn unfinished(&self, caller: Option<&SpiffeId>) -> Result<Option<Unfinished>, Full> {
        let Some(caller) = caller.filter(|_| !sabotage::on("unfinished_calls_are_free")) else {
            return Ok(None);
        };
        let tenant = self.door.broker.table.in_force().registry().tenant_of(caller).cloned();
        Ok(Some((self.unfinished_of_callers.take(caller)?, self.unfinished_of_tenants.take(&tenant)?)))
    }

    /// How long an answer may still take.
    fn left(&self, call: &Call<'_>) -> Duration {
        call.until.saturating_sub(self.door.broker.clock.since_boot())
    }

    /// There is as much of something as there may be.
    fn too_much(&self, caller: Option<&SpiffeId>, call: &Call<'_>, limit: &'static str) -> Status {
        let comebacks = if caller.is_some() { &self.comebacks } else { &self.comebacks_of_strangers };
        let retry = comebacks.next(self.door.broker.clock.since_boot());
        self.turn_away(caller, call, limit, "too much is going on: try again later", retry)
    }

    fn called_too_often(&self, caller: &SpiffeId, call: &Call<'_>, wait: Duration) -> Status {
        self.turn_away(Some(caller), call, "calls_per_second_per_caller_max", "called too often", wait)
    }

    /// Tells the caller, and leaves a record as far as there is a budget for it.
    fn turn_away(
        &self,
        caller: Option<&SpiffeId>,
        Call { class, method, .. }: &Call<'_>,
        reason: &'static str,
        text: &str,
        retry: Duration,
    ) -> Status {
        self.door.broker.metrics.turned_away(class.as_str(), reason);
        if let Some(caller) = caller {
            self.door.broker.turn_away(caller, method, reason);
        }
        status::exhausted(&reason.to_uppercase(), text, retry)
    }

    fn refuse(&self, who: &Who, method: &str, unread: &Unread) -> Status {
        let refusal = Refusal::new(unread.kind, unread.reason, unread.text);
        let recorded = match who {
            Who::Root { uid } => self.door.broker.refuse_root(*uid, method, &refusal),
            Who::Known(caller) => {
                let operation = DeniedOperation::Method(method.to_owned());
                self.door.broker.refuse(caller, operation, None, None, &refusal)
            }
            Who::Nobody => return self.door.stranger(method, unread.reason),
        };
        match recorded {
            Ok(()) => unread.status(),
            Err(unrecorded) => status::of(&unrecorded),
        }
    }
}
