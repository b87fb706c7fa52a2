//! An index of policies by their scope, so that a request is decided by the few policies that can concern it.
//!
//! What the head of a policy says of action, principal and resource is known at load. Policies that name the same
//! ones lie in one set, and a request asks at most four of an action's sets: policies that name no one in
//! particular, its principal, its resource, or both. Every policy lies in one set per action, so the sets'
//! answers together are the answer of the whole.
//!
//! INVARIANT: no entity has parents, neither in the schema nor in a request, so `in` a single entity means `==`.

use std::collections::HashMap;

use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint,
    Schema,
};

use crate::LoadError;
use crate::vocabulary::Query;

/// Policies by action, then by principal and resource.
#[derive(Debug)]
pub(crate) struct Slices(HashMap<EntityUid, ByPrincipal>);

/// Policies of one action.
#[derive(Debug, Default)]
struct ByPrincipal {
    any: ByResource,
    named: HashMap<EntityUid, ByResource>,
}

/// Policies of one action that name one principal, or none.
#[derive(Debug, Default)]
struct ByResource {
    any: PolicySet,
    named: HashMap<EntityUid, PolicySet>,
}

impl Slices {
    /// Indexes policies that were found valid against the schema.
    ///
    /// # Errors
    /// [`LoadError::Engine`] if two policies have the same id.
    pub(crate) fn index<'a>(
        schema: &Schema,
        policies: impl IntoIterator<Item = &'a Policy>,
    ) -> Result<Self, LoadError> {
        let mut slices =
            Self(schema.actions().map(|action| (action.clone(), ByPrincipal::default())).collect());
        for policy in policies {
            let principal = Head::from(policy.principal_constraint());
            let resource = Head::from(policy.resource_constraint());
            for (action, by_principal) in &mut slices.0 {
                let concerned = names_action(&policy.action_constraint(), action)
                    && principal.admits(schema.principals_for_action(action))
                    && resource.admits(schema.resources_for_action(action));
                if !concerned {
                    continue;
                }
                let by_resource = match &principal.entity {
                    None => &mut by_principal.any,
                    Some(entity) => by_principal.named.entry(entity.clone()).or_default(),
                };
                let set = match &resource.entity {
                    None => &mut by_resource.any,
                    Some(entity) => by_resource.named.entry(entity.clone()).or_default(),
                };
                set.add(policy.clone()).map_err(|error| LoadError::Engine(error.to_string()))?;
            }
        }
        Ok(slices)
    }

    /// The sets that together hold every policy whose head a request can match.
    pub(crate) fn candidates<'a>(&'a self, query: &'a Query) -> impl Iterator<Item = &'a PolicySet> {
        query
            .request
            .action()
            .and_then(|action| self.0.get(action))
            .into_iter()
            .flat_map(|by| [Some(&by.any), by.named.get(&query.principal)])
            .flatten()
            .flat_map(|by| [Some(&by.any), by.named.get(&query.resource)])
            .flatten()
            .filter(|set| !set.is_empty())
    }
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
    entity_type: Option<EntityTypeName>,
    entity: Option<EntityUid>,
}

impl Head {
    /// Whether an entity of one of these types can match.
    fn admits<'a>(&self, entity_types: Option<impl Iterator<Item = &'a EntityTypeName>>) -> bool {
        entity_types.into_iter().flatten().any(|entity_type| {
            self.entity_type.as_ref().is_none_or(|named| named == entity_type)
                && self.entity.as_ref().is_none_or(|named| named.type_name() == entity_type)
        })
    }
}

impl From<PrincipalConstraint> for Head {
    fn from(constraint: PrincipalConstraint) -> Self {
        match constraint {
            PrincipalConstraint::Any => Self::default(),
            PrincipalConstraint::Is(entity_type) => Self { entity_type: Some(entity_type), entity: None },
            PrincipalConstraint::Eq(entity) | PrincipalConstraint::In(entity) => {
                Self { entity_type: None, entity: Some(entity) }
            }
            PrincipalConstraint::IsIn(entity_type, entity) => {
                Self { entity_type: Some(entity_type), entity: Some(entity) }
            }
        }
    }
}

impl From<ResourceConstraint> for Head {
    fn from(constraint: ResourceConstraint) -> Self {
        match constraint {
            ResourceConstraint::Any => Self::default(),
            ResourceConstraint::Is(entity_type) => Self { entity_type: Some(entity_type), entity: None },
            ResourceConstraint::Eq(entity) | ResourceConstraint::In(entity) => {
                Self { entity_type: None, entity: Some(entity) }
            }
            ResourceConstraint::IsIn(entity_type, entity) => {
                Self { entity_type: Some(entity_type), entity: Some(entity) }
            }
        }
    }
}
