//! Scope: a finite set of permissions with decidable containment.
//!
//! `a ⊆ b` holds iff each permission of `a` lies in **one** permission of `b`. That is sound and decidable, and it
//! never joins two permissions into one. The empty set permits nothing. There is one way to make a smaller scope,
//! [`Scope::narrow`], and it refuses to widen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::serde_as_text;
use crate::name::{ActionName, ArgumentName, AudienceName, is_segment_byte};
use crate::sabotage;

/// The most segments in a resource.
pub const RESOURCE_SEGMENTS_MAX: usize = 16;
/// The most bytes in a segment of a resource.
pub const RESOURCE_SEGMENT_BYTES_MAX: usize = 64;
/// The most permissions in a scope.
pub const PERMISSIONS_MAX: usize = 64;
/// The most elements in any set within a permission.
pub const SET_ELEMENTS_MAX: usize = 64;
/// The most bytes in a textual value of a constraint.
pub const VALUE_BYTES_MAX: usize = 256;

/// Why something is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidScope {
    /// A resource pattern does not fit its grammar.
    #[error(
        "not a valid resource: expected seg(/seg)* with seg = [A-Za-z0-9._-]{{1,64}}, at most 16, optionally ending in /**"
    )]
    Resource,
    /// A permission names no action.
    #[error("a permission names no action")]
    NoAction,
    /// A constraint admits no value at all or says nothing.
    #[error("the constraint of {0} is empty")]
    EmptyConstraint(ArgumentName),
    /// A textual value is empty, too long or has a control character.
    #[error("a value of {0} is not valid")]
    Value(ArgumentName),
    /// More elements than the limit.
    #[error("more than {max} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
}

/// A wanted scope that does not lie in the scope it was to be cut from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("permission {index} for {audience} is not within what is allowed")]
pub struct Widening {
    /// Which permission of the wanted scope, counted from zero.
    pub index: usize,
    /// Its audience.
    pub audience: AudienceName,
}

/// `seg(/seg)*`, optionally ending in `/**`, which means everything strictly below.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePattern(Arc<str>);

const BELOW: &str = "/**";

impl ResourcePattern {
    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// With the trailing slash, so that `a/b` is not taken to be below `a/`'s neighbour `a/bc`.
    fn parent_of_all(&self) -> Option<&str> {
        self.0.strip_suffix("**")
    }

    /// Whether every resource that this pattern means is also meant by `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        match other.parent_of_all() {
            None => self == other,
            // `a/**` lies in `a/**`; so does everything whose text continues `a/`.
            Some(parent) => self.0.starts_with(parent),
        }
    }

    /// Whether some resource is meant by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.is_within(other) || other.is_within(self)
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ResourcePattern {
    type Err = InvalidScope;
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let segments = text.strip_suffix(BELOW).unwrap_or(text);
        // A segment ends with no dot: neither `.` nor `..` nor a name that some file systems would cut.
        let valid = |segment: &str| {
            !segment.is_empty()
                && segment.len() <= RESOURCE_SEGMENT_BYTES_MAX
                && !segment.ends_with('.')
                && segment.bytes().all(is_segment_byte)
        };
        if segments.split('/').count() > RESOURCE_SEGMENTS_MAX || !segments.split('/').all(valid) {
            return Err(InvalidScope::Resource);
        }
        Ok(Self(text.into()))
    }
}

serde_as_text!(ResourcePattern, pattern => pattern.as_str());

/// The value of an argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A text, compared byte for byte.
    Text(String),
}

/// What an argument of an action may be. An argument without a constraint is free.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Constraint {
    /// One of these values; equality is a set of one.
    OneOf(BTreeSet<Value>),
    /// A whole number between the bounds, both inclusive; at least one bound is given.
    Between {
        /// `≥`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<i64>,
        /// `≤`
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<i64>,
    },
    /// A text that begins so.
    Prefix(String),
}

impl Constraint {
    /// Whether the value is admitted.
    #[must_use]
    pub fn admits(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::OneOf(set), value) => set.contains(value),
            (Self::Between { min, max }, Value::Integer(n)) => {
                min.is_none_or(|min| min <= *n) && max.is_none_or(|max| *n <= max)
            }
            (Self::Prefix(prefix), Value::Text(text)) => text.starts_with(prefix),
            (Self::Between { .. }, Value::Text(_)) | (Self::Prefix(_), Value::Integer(_)) => false,
        }
    }

    /// Whether every value that this admits is also admitted by `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::OneOf(set), other) => set.iter().all(|value| other.admits(value)),
            (Self::Between { min, max }, Self::Between { min: other_min, max: other_max }) => {
                other_min.is_none_or(|bound| min.is_some_and(|min| bound <= min))
                    && other_max.is_none_or(|bound| max.is_some_and(|max| max <= bound))
            }
            (Self::Between { min: Some(min), max: Some(max) }, Self::OneOf(set)) => {
                // Only a range no wider than the set can lie in it, so this loop is bounded by the set's size.
                max.checked_sub(*min).is_some_and(|width| usize::try_from(width).is_ok_and(|w| w < set.len()))
                    && (*min..=*max).all(|n| set.contains(&Value::Integer(n)))
            }
            (Self::Prefix(prefix), Self::Prefix(other)) => prefix.starts_with(other),
            (Self::Between { .. } | Self::Prefix(_), _) => false,
        }
    }

    fn check(&self, argument: &ArgumentName) -> Result<(), InvalidScope> {
        let empty = || InvalidScope::EmptyConstraint(argument.clone());
        let check_text = |text: &str| {
            if text.is_empty() || text.len() > VALUE_BYTES_MAX || text.chars().any(char::is_control) {
                return Err(InvalidScope::Value(argument.clone()));
            }
            Ok(())
        };
        match self {
            Self::OneOf(set) if set.is_empty() => Err(empty()),
            Self::OneOf(set) => {
                limit("values in a constraint", set.len(), SET_ELEMENTS_MAX)?;
                set.iter().try_for_each(|value| match value {
                    Value::Integer(_) => Ok(()),
                    Value::Text(text) => check_text(text),
                })
            }
            Self::Between { min: None, max: None } => Err(empty()),
            Self::Between { min: Some(min), max: Some(max) } if min > max => Err(empty()),
            Self::Between { .. } => Ok(()),
            Self::Prefix(prefix) => check_text(prefix),
        }
    }
}

/// What may be done to which resources of one audience.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawPermission")]
pub struct Permission {
    audience: AudienceName,
    resource: ResourcePattern,
    actions: BTreeSet<ActionName>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    constraints: BTreeMap<ArgumentName, Constraint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPermission {
    audience: AudienceName,
    resource: ResourcePattern,
    actions: BTreeSet<ActionName>,
    #[serde(default)]
    constraints: BTreeMap<ArgumentName, Constraint>,
}

impl TryFrom<RawPermission> for Permission {
    type Error = InvalidScope;
    fn try_from(raw: RawPermission) -> Result<Self, InvalidScope> {
        Self::new(raw.audience, raw.resource, raw.actions, raw.constraints)
    }
}

impl Permission {
    /// A permission that permits something.
    ///
    /// # Errors
    /// [`InvalidScope`] if it names no action, has an empty constraint, or exceeds a limit.
    pub fn new(
        audience: AudienceName,
        resource: ResourcePattern,
        actions: BTreeSet<ActionName>,
        constraints: BTreeMap<ArgumentName, Constraint>,
    ) -> Result<Self, InvalidScope> {
        if actions.is_empty() {
            return Err(InvalidScope::NoAction);
        }
        limit("actions in a permission", actions.len(), SET_ELEMENTS_MAX)?;
        limit("constraints in a permission", constraints.len(), SET_ELEMENTS_MAX)?;
        constraints.iter().try_for_each(|(argument, constraint)| constraint.check(argument))?;
        Ok(Self { audience, resource, actions, constraints })
    }

    /// The audience.
    #[must_use]
    pub const fn audience(&self) -> &AudienceName {
        &self.audience
    }

    /// The resources.
    #[must_use]
    pub const fn resource(&self) -> &ResourcePattern {
        &self.resource
    }

    /// The actions, never empty.
    #[must_use]
    pub const fn actions(&self) -> &BTreeSet<ActionName> {
        &self.actions
    }

    /// The constraints on arguments.
    #[must_use]
    pub const fn constraints(&self) -> &BTreeMap<ArgumentName, Constraint> {
        &self.constraints
    }

    /// Whether everything that this permits is also permitted by `other` alone.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.audience == other.audience
            && self.resource.is_within(&other.resource)
            && self.actions.is_subset(&other.actions)
            // Where `other` constrains an argument, this must constrain it as much; a free one would be wider.
            && other.constraints.iter().all(|(argument, outer)| {
                self.constraints.get(argument).is_some_and(|inner| inner.is_within(outer))
            })
    }

    /// Whether one call is permitted.
    #[must_use]
    pub fn permits(
        &self,
        audience: &AudienceName,
        resource: &ResourcePattern,
        action: &ActionName,
        arguments: &BTreeMap<ArgumentName, Value>,
    ) -> bool {
        self.audience == *audience
            && resource.is_within(&self.resource)
            && self.actions.contains(action)
            && self.constraints.iter().all(|(argument, constraint)| {
                arguments.get(argument).is_some_and(|value| constraint.admits(value))
            })
    }
}

/// A finite set of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(try_from = "Vec<Permission>")]
pub struct Scope(Arc<[Permission]>);

impl Scope {
    /// A scope of these permissions; order and repetition mean nothing.
    ///
    /// # Errors
    /// [`InvalidScope::TooMany`] above [`PERMISSIONS_MAX`].
    pub fn new(permissions: impl IntoIterator<Item = Permission>) -> Result<Self, InvalidScope> {
        let set: BTreeSet<Permission> = permissions.into_iter().collect();
        limit("permissions in a scope", set.len(), PERMISSIONS_MAX)?;
        Ok(Self(set.into_iter().collect()))
    }

    /// The permissions, sorted, without repetition.
    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        &self.0
    }

    /// Whether nothing is permitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The audiences named, each once.
    #[must_use]
    pub fn audiences(&self) -> BTreeSet<&AudienceName> {
        self.0.iter().map(Permission::audience).collect()
    }

    /// What it permits of one audience. None if that is nothing.
    #[must_use]
    pub fn part_of(&self, audience: &AudienceName) -> Option<Self> {
        let part: Arc<[Permission]> = self.0.iter().filter(|it| it.audience == *audience).cloned().collect();
        (!part.is_empty()).then_some(Self(part))
    }

    /// Whether every permission of this scope lies in one permission of `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.first_outside(other).is_none()
    }

    fn first_outside(&self, other: &Self) -> Option<(usize, &Permission)> {
        self.0.iter().enumerate().find(|(_, inner)| !other.0.iter().any(|outer| inner.is_within(outer)))
    }

    /// Takes `wanted` as a part of this scope. Nothing is cut to fit: what is wider is refused.
    ///
    /// # Errors
    /// [`Widening`] names the first permission that lies in none of this scope's.
    pub fn narrow(&self, wanted: Self) -> Result<Self, Widening> {
        match wanted.first_outside(self) {
            None => Ok(wanted),
            Some(_) if sabotage::on("narrow_widens") => Ok(wanted),
            Some((index, permission)) => Err(Widening { index, audience: permission.audience.clone() }),
        }
    }

    /// Whether one call is permitted.
    #[must_use]
    pub fn permits(
        &self,
        audience: &AudienceName,
        resource: &ResourcePattern,
        action: &ActionName,
        arguments: &BTreeMap<ArgumentName, Value>,
    ) -> bool {
        self.0.iter().any(|permission| permission.permits(audience, resource, action, arguments))
    }
}

impl TryFrom<Vec<Permission>> for Scope {
    type Error = InvalidScope;
    fn try_from(permissions: Vec<Permission>) -> Result<Self, InvalidScope> {
        Self::new(permissions)
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

const fn limit(what: &'static str, count: usize, max: usize) -> Result<(), InvalidScope> {
    if count > max { Err(InvalidScope::TooMany { what, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
