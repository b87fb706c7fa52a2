//! Commands that grow a tree: they must be granted or refused as the definitions say.

use std::collections::BTreeSet;

use super::super::*;
use super::commands::{self, Odd, Stale};
use super::model::{LeaseRow, TaskRow, is_within};
use super::run::Run;
use super::sample::*;
use crate::digest::{ClaimDigest, RequestDigest};
use crate::id::LeaseKey;
use crate::name::RequestId;
use crate::proof::Plan;
use crate::request::DelegateFacts;
use crate::revision::Basis;
use crate::terms::{Content, Terms};

pub(crate) const QUOTA: u32 = 3;
const ISSUED_MAX: usize = 9;
const TREE: TreeLimits = TreeLimits { depth_max: 2, tasks_max: 9 };

impl Run {
    pub(super) fn open(&mut self, mut row: TaskRow) {
        let wanted = opened_as(&row, None, 0, self.issue);
        let tenant = tenant(row.tenant);
        let permit = permit_to_open(&wanted, &tenant, self.system.basis(row.id));
        let answer = Ledger::open(&permit, opening(&wanted), &self.system.control, self.now());
        let expected = row.deadline > self.judge && !self.model.is_stopped(&row, None, self.judge);
        assert_eq!(answer.is_ok(), expected, "{answer:?}");
        let Ok(fact) = answer else { return };
        row.opened = self.system.record(&fact, Some((row.id, &tenant)), None, self.now());
        self.model.tasks.push(row);
    }

    pub(super) fn delegate(&mut self, parent: usize, mut row: TaskRow, odd: &Odd, stale: &Stale) {
        let above = &self.model.tasks[parent];
        let depth = u8::try_from(self.model.line(parent).len()).unwrap();
        let wanted = opened_as(&row, Some(above.id), depth, self.issue);
        let mut facts = task_facts(&wanted);
        if *odd == Odd::Depth {
            facts.depth -= 1;
        }
        if *odd == Odd::Delegator {
            facts.delegator = workload("td/people/eve");
        }
        let caller = if *odd == Odd::Caller { workload("td/agents/eve") } else { row.opener.clone() };
        let other = if *odd == Odd::Tenant { "elsewhere" } else { above.tenant };
        let delegate = DelegateFacts { tenant: tenant(other), roles: BTreeSet::new() };
        let asked =
            Ask::DelegateTask { context: context(facts, row.scope.clone()), parent: above.id, delegate };
        let basis = self.basis(above.id, stale);
        let permit = permit(asked, &caller, &tenant(above.tenant), basis, policy(1));
        let ledger = self.system.tree(above.id);
        let answer = ledger.delegate(&permit, opening(&wanted), &self.system.control, self.now(), TREE);

        let expected = *stale == Stale::Nothing
            && matches!(odd, Odd::Nothing | Odd::Forced)
            && self.model.task_lives(parent, self.judge)
            && depth <= TREE.depth_max
            && self.model.tasks.iter().filter(|task| task.id.root() == above.id.root()).count()
                < TREE.tasks_max
            && row.deadline > self.judge
            && row.deadline <= self.model.deadline(parent)
            && row.sensitivity <= above.sensitivity
            && is_within(&row.scope, &above.scope)
            && !self.model.is_stopped(&row, None, self.judge);
        assert_eq!(answer.is_ok(), expected, "{answer:?}");
        let fact = match answer {
            Ok(fact) => fact,
            Err(_) if *odd == Odd::Forced => Fact::TaskOpened(Arc::new(wanted)),
            Err(_) => return,
        };
        row.opened = self.record(&fact, parent, None);
        self.model.tasks.push(row);
    }

    /// What a decision was computed from that may be older than what is known by now.
    fn basis(&self, task: TaskId, stale: &Stale) -> Basis {
        let fresh = self.system.basis(task);
        let older = |revision: Revision| Revision(revision.0.wrapping_sub(1));
        match stale {
            Stale::Nothing => fresh,
            Stale::Tree => Basis { tree: older(fresh.tree), ..fresh },
            Stale::Control => Basis { control: older(fresh.control), ..fresh },
        }
    }

    pub(super) fn issue(
        &mut self,
        task: usize,
        renews: Option<LeaseKey>,
        terms: Terms,
        wish: &commands::Wish,
    ) {
        let request = (request_id(&format!("r{}", wish.request.0)), body(wish.request.1));
        let claim = wish.claim.map(claim);
        let row = &self.model.tasks[task];
        let ledger = self.system.tree(row.id);

        // L9: what was answered once is recalled, by its task alone and as long as that exists.
        let recalled = ledger.recall(row.id, &request.0, &request.1);
        assert_eq!(recalled, self.recalled(task, &request));
        if recalled != Recall::New {
            return;
        }
        let facts = ledger.facts(row.id, &self.system.control, self.now()).unwrap();
        let permit = permit_for(&terms, renews, facts, ledger.tenant(), self.basis(row.id, &wish.stale));
        let plan = Plan::drawn(permit, terms.clone());
        let limits = LeaseLimits { live_max: QUOTA, issued_max: ISSUED_MAX };
        let answer = ledger.issue(&plan, request.1, claim, &self.system.control, self.now(), limits);
        let expected = wish.stale == Stale::Nothing && self.may_issue(task, renews, &terms, claim);
        assert_eq!(answer.is_ok(), expected, "{answer:?} {terms:?}");
        let Ok(fact) = answer else { return };
        let issued = self.record_issue(&fact, task, &request, &terms, renews);
        assert_eq!(self.system.tree(terms.id.task).lease(terms.id).unwrap().revision(), issued);
    }

    fn record_issue(
        &mut self,
        fact: &Fact,
        task: usize,
        request: &(RequestId, RequestDigest),
        terms: &Terms,
        renews: Option<LeaseKey>,
    ) -> Revision {
        let issued = self.record(fact, task, Some(request.0.clone()));
        self.model.tasks[task].holder = Holder::Key(terms.holder);
        self.model.leases.push(LeaseRow {
            task,
            terms: terms.clone(),
            issued,
            renews,
            request: request.clone(),
            ended: false,
            recorded: false,
            died: None,
        });
        issued
    }

    fn recalled(&self, task: usize, request: &(RequestId, RequestDigest)) -> Recall {
        let mut of_task = self.model.leases.iter().filter(|lease| lease.task == task);
        match of_task.find(|lease| lease.request.0 == request.0) {
            None => Recall::New,
            Some(lease) if lease.request.1 == request.1 => Recall::Same(lease.terms.id.key),
            Some(_) => Recall::Other,
        }
    }

    fn may_issue(
        &self,
        task: usize,
        renews: Option<LeaseKey>,
        terms: &Terms,
        claim: Option<ClaimDigest>,
    ) -> bool {
        let row = &self.model.tasks[task];
        let held = match row.holder {
            Holder::Key(key) => key == terms.holder,
            Holder::Claim(expected) => claim == Some(expected),
        };
        let end = terms.end.millis();
        let within = match &terms.content {
            Content::TaskToken(token) => is_within(&token.scope, &row.scope),
            Content::X509Svid(_) => true,
            Content::JwtSvid(svid) => {
                row.scope.permissions().iter().any(|permission| *permission.audience() == svid.audience)
            }
        };
        held && within
            && end > self.judge
            && end <= self.model.deadline(task)
            && self.model.task_lives(task, self.judge)
            && renews.is_none_or(|key| self.may_renew(task, key, terms))
            && !self.model.is_stopped(row, Some(terms), self.judge)
            && self.model.leases_live(task, self.judge) < QUOTA as usize
            && self.model.leases_issued(task) < ISSUED_MAX
    }

    /// L5: a lease is renewed by one of the same task, form, audience and holder that permits nothing more, and only
    /// while it lives.
    fn may_renew(&self, task: usize, key: LeaseKey, terms: &Terms) -> bool {
        (0..self.model.leases.len()).any(|lease| {
            let row = &self.model.leases[lease];
            let same = match (&row.terms.content, &terms.content) {
                (Content::TaskToken(before), Content::TaskToken(after)) => {
                    before.audience == after.audience && is_within(&after.scope, &before.scope)
                }
                (Content::X509Svid(_), Content::X509Svid(_)) => true,
                (Content::JwtSvid(before), Content::JwtSvid(after)) => before.audience == after.audience,
                _ => false,
            };
            row.task == task
                && row.terms.id.key == key
                && row.terms.holder == terms.holder
                && same
                && self.model.lease_lives(lease, self.judge)
        })
    }
}

fn opened_as(row: &TaskRow, parent: Option<TaskId>, depth: u8, issue: u64) -> TaskOpened {
    TaskOpened {
        agent: row.agent.clone(),
        delegator: row.delegator.clone(),
        opener: row.opener.clone(),
        sensitivity_max: row.sensitivity,
        scope: row.scope.clone(),
        opened_at: at(issue),
        deadline: at(row.deadline),
        depth,
        holder: row.holder,
        ..opened(row.id, parent)
    }
}
