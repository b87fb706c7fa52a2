//! An index of policies by their heads, so that a request is decided by exactly the policies that concern it.
//!
//! What the head of a policy says of action, principal and resource is known at load. Policies that name the same
//! ones lie in one list, and a request meets at most four of the lists for its action and its type of resource:
//! policies that name no one in particular, its principal, its resource, or both. Every policy lies in one list for
//! each action and type, and each policy in a list that a request meets has a head that matches the request, so
//! only its condition is left to evaluate.
//!
//! INVARIANT: no entity has parents, neither in the schema nor in a request, so `in` a single entity means `==`.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use brevet_core::request::Operation;
use brevet_core::sabotage;
use brevet_core::terms::Profile;
use cedar_policy::{
    ActionConstraint, Effect, EntityTypeName, EntityUid, Policy, PrincipalConstraint, ResourceConstraint,
};
use cedar_policy_core::ast::{self, Expr, ExprKind, Literal};

use crate::LoadError;
use crate::condition::Quick;
use crate::load::{Loaded, Provenance};
use crate::vocabulary::{Facts, Kind, OPERATIONS, Sentence, Words};

/// A policy whose head matches.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) id: String,
    pub(crate) effect: Effect,
    /// What its `when` and `unless` say. None if it has neither.
    pub(crate) condition: Option<Expr>,
    /// The same, written again.
    pub(crate) quick: Option<Quick>,
    /// Whether its condition names JWT-SVIDs.
    pub(crate) names_jwt_svids: bool,
    pub(crate) provenance: Provenance,
}

impl Candidate {
    /// What its condition reads. None if that could not be written again.
    fn words(&self) -> Option<Words> {
        match (&self.condition, &self.quick) {
            (None, _) => Some(Words::default()),
            (Some(_), quick) => quick.as_ref().map(|quick| quick.words),
        }
    }
}

/// Policies that name the same principal and resource, or none.
#[derive(Debug)]
pub(crate) struct Candidates {
    pub(crate) policies: Vec<Arc<Candidate>>,
    /// What their conditions read, if each of them could be written again.
    pub(crate) words: Option<Words>,
}

impl Default for Candidates {
    fn default() -> Self {
        Self { policies: Vec::new(), words: Some(Words::default()) }
    }
}

/// Policies by action and type of resource, then by principal and resource.
#[derive(Debug)]
pub(crate) struct Slices(HashMap<(Operation, Kind), Slice>);

/// Policies of one action on one type of resource.
#[derive(Debug)]
struct Slice {
    sentence: Sentence,
    any: ByResource,
    named: HashMap<String, ByResource>,
}

/// Those of them that name one principal, or none.
#[derive(Debug, Default)]
struct ByResource {
    any: Candidates,
    named: HashMap<String, Candidates>,
}

impl Slices {
    /// Indexes policies that were found valid against the schema.
    ///
    /// # Errors
    /// [`LoadError::Engine`] if Cedar does not take again what it accepted before.
    pub(crate) fn index(loaded: &Loaded) -> Result<Self, LoadError> {
        let entries: Vec<Entry> =
            loaded.whole.policies().map(|policy| Entry::of(policy, loaded)).collect::<Result<_, _>>()?;
        let mut slices = HashMap::new();
        for operation in OPERATIONS {
            let action: EntityUid = format!("Brevet::Action::\"{operation}\"").parse().map_err(engine)?;
            let types: Vec<String> = loaded
                .schema
                .resources_for_action(&action)
                .into_iter()
                .flatten()
                .map(ToString::to_string)
                .collect();
            for kind in Kind::ALL.into_iter().filter(|kind| types.iter().any(|name| name == kind.as_str())) {
                let mut slice = Slice {
                    sentence: Sentence::of(operation, kind)?,
                    any: ByResource::default(),
                    named: HashMap::new(),
                };
                for entry in &entries {
                    if names_action(&entry.action, &action)
                        && entry.principal.admits(Kind::Workload)
                        && entry.resource.admits(kind)
                    {
                        slice.take(entry);
                    }
                }
                slices.insert((operation, kind), slice);
            }
        }
        Ok(Self(slices))
    }

    /// The lists that together hold every policy whose head a request matches, and how the request is said to them.
    pub(crate) fn candidates(&self, facts: &Facts<'_>) -> Option<(&Sentence, Vec<&Candidates>)> {
        let (kind, resource) = facts.resource;
        let slice = self.0.get(&(facts.operation, kind))?;
        let candidates = [Some(&slice.any), slice.named.get(facts.caller.spiffe_id.as_str())]
            .into_iter()
            .flatten()
            .flat_map(|by_resource| [Some(&by_resource.any), by_resource.named.get(resource)])
            .flatten()
            .collect();
        Some((&slice.sentence, candidates))
    }
}

impl Slice {
    fn take(&mut self, entry: &Entry) {
        let by_resource = match &entry.principal.id {
            None => &mut self.any,
            Some(id) => self.named.entry(id.clone()).or_default(),
        };
        let candidates = match &entry.resource.id {
            None => &mut by_resource.any,
            Some(_) if sabotage::on("slices_forget") => return,
            Some(id) => by_resource.named.entry(id.clone()).or_default(),
        };
        candidates.policies.push(entry.candidate.clone());
        candidates.words = candidates.words.and_then(|words| Some(words.and(entry.candidate.words()?)));
    }
}

/// A policy with its head.
struct Entry {
    action: ActionConstraint,
    principal: Head,
    resource: Head,
    candidate: Arc<Candidate>,
}

impl Entry {
    fn of(policy: &Policy, loaded: &Loaded) -> Result<Self, LoadError> {
        let id = policy.id().to_string();
        let provenance = loaded.provenance.get(policy.id()).cloned();
        let provenance = provenance.ok_or_else(|| LoadError::Engine(format!("{id} has no place")))?;
        let condition = AsRef::<ast::Policy>::as_ref(policy).non_scope_constraints().cloned();
        let quick = condition.as_ref().and_then(Quick::of);
        let names_jwt_svids = condition.as_ref().is_some_and(|it| names(it, Profile::JwtSvid));
        let candidate =
            Candidate { id, effect: policy.effect(), condition, quick, names_jwt_svids, provenance };
        Ok(Self {
            action: policy.action_constraint(),
            principal: policy.principal_constraint().into(),
            resource: policy.resource_constraint().into(),
            candidate: Arc::new(candidate),
        })
    }
}

fn engine(error: impl Display) -> LoadError {
    LoadError::Engine(error.to_string())
}

/// Whether a form of credential is named in a condition, as `"task_token"`.
fn names(condition: &Expr, form: Profile) -> bool {
    condition
        .subexpressions()
        .any(|part| matches!(part.expr_kind(), ExprKind::Lit(Literal::String(text)) if text == form.as_str()))
}

fn names_action(constraint: &ActionConstraint, action: &EntityUid) -> bool {
    match constraint {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(named) => named == action,
        ActionConstraint::In(named) => named.contains(action),
    }
}

/// What a policy's head says of its principal or its resource.
#[derive(Default)]
struct Head {
    /// The types it names: after `is`, and of the entity.
    types: Vec<String>,
    /// The id of the entity it names.
    id: Option<String>,
}

impl Head {
    fn new(entity_type: Option<EntityTypeName>, entity: Option<EntityUid>) -> Self {
        let of_entity = entity.as_ref().map(|entity| entity.type_name().to_string());
        Self {
            types: entity_type.map(|named| named.to_string()).into_iter().chain(of_entity).collect(),
            id: entity.map(|entity| entity.id().unescaped().to_owned()),
        }
    }

    /// Whether an entity of this type can match.
    fn admits(&self, kind: Kind) -> bool {
        self.types.iter().all(|named| named == kind.as_str())
    }
}

impl From<PrincipalConstraint> for Head {
    fn from(constraint: PrincipalConstraint) -> Self {
        match constraint {
            PrincipalConstraint::Any => Self::default(),
            PrincipalConstraint::Is(entity_type) => Self::new(Some(entity_type), None),
            PrincipalConstraint::Eq(entity) | PrincipalConstraint::In(entity) => {
                Self::new(None, Some(entity))
            }
            PrincipalConstraint::IsIn(entity_type, entity) => Self::new(Some(entity_type), Some(entity)),
        }
    }
}

impl From<ResourceConstraint> for Head {
    fn from(constraint: ResourceConstraint) -> Self {
        match constraint {
            ResourceConstraint::Any => Self::default(),
            ResourceConstraint::Is(entity_type) => Self::new(Some(entity_type), None),
            ResourceConstraint::Eq(entity) | ResourceConstraint::In(entity) => Self::new(None, Some(entity)),
            ResourceConstraint::IsIn(entity_type, entity) => Self::new(Some(entity_type), Some(entity)),
        }
    }
}
