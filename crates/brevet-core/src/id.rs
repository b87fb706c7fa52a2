//! Identifiers: 128 bits, written as 26 lower-case Crockford base32 characters, parsed strictly.
//!
//! A task id carries its root's id and a lease id carries its task's, so that the tree which owns an object is
//! found without an index. As resource names: `tasks/{task}`, `tasks/{task}/leases/{lease}`, `locks/{lock}`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A string that is not an identifier of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a valid {0}")]
pub struct InvalidId(&'static str);

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LENGTH: usize = 26;

/// Gives a type that has `FromStr` the same form in serde: that of its `Display`, or the text that an expression
/// yields, which is written several times as fast.
macro_rules! serde_as_text {
    ($type:ty) => {
        $crate::id::serde_as_text!($type, serialize(value, serializer) { serializer.collect_str(value) });
    };
    ($type:ty, $value:ident => $text:expr) => {
        $crate::id::serde_as_text!($type, serialize($value, serializer) { serializer.serialize_str($text) });
    };
    ($type:ty, serialize($value:ident, $serializer:ident) $serialize:block) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, $serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self;
                $serialize
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(stringify!($type))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// 128 bits with a text form of 26 characters: a task's own part of its id, an element of a token's `task` path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 16]);

impl Id {
    /// An identifier from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of this identifier.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() != TEXT_LENGTH {
            return None;
        }
        let mut value: u128 = 0;
        for (position, byte) in text.bytes().enumerate() {
            let digit = digit(byte)?;
            // 26 characters hold 130 bits; the first may only use the lower three of its five.
            if position == 0 && digit > 7 {
                return None;
            }
            value = (value << 5) | u128::from(digit);
        }
        Some(Self(value.to_be_bytes()))
    }
}

/// The place of a character in [`ALPHABET`].
const fn digit(character: u8) -> Option<u8> {
    Some(match character {
        b'0'..=b'9' => character - b'0',
        b'a'..=b'h' => character - b'a' + 10,
        b'j' | b'k' => character - b'j' + 18,
        b'm' | b'n' => character - b'm' + 20,
        b'p'..=b't' => character - b'p' + 22,
        b'v'..=b'z' => character - b'v' + 27,
        _ => return None,
    })
}

/// The longest text of any id: a lease's of a delegated task.
const TEXT_BYTES_MAX: usize = "tasks/".len() + 2 * TEXT_LENGTH + "-".len() + "/leases/".len() + TEXT_LENGTH;

/// The text of an id, put together without allocating.
struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl Text {
    const EMPTY: Self = Self { bytes: [0; TEXT_BYTES_MAX], length: 0 };

    fn text(mut self, text: &str) -> Self {
        // There is room for every text that is put together here.
        if let Some(room) = self.bytes.get_mut(self.length..self.length + text.len()) {
            room.copy_from_slice(text.as_bytes());
            self.length += text.len();
        }
        self
    }

    fn id(self, id: Id) -> Self {
        let mut value = u128::from_be_bytes(id.0);
        let mut text = [b'0'; TEXT_LENGTH];
        for character in text.iter_mut().rev() {
            *character = ALPHABET.get((value & 31) as usize).copied().unwrap_or(b'0');
            value >>= 5;
        }
        self.text(std::str::from_utf8(&text).unwrap_or_default())
    }

    fn task(self, task: TaskId) -> Self {
        let root = self.id(task.root.0);
        if task.is_root() { root } else { root.text("-").id(task.node) }
    }

    fn as_str(&self) -> &str {
        // It is made of texts.
        self.bytes.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Text::EMPTY.id(*self).as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::parse(text).ok_or(InvalidId("id"))
    }
}

serde_as_text!(Id, id => Text::EMPTY.id(*id).as_str());

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub Id);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Id::parse(text).map(Self).ok_or(InvalidId($kind))
            }
        }

        serde_as_text!($type, id => Text::EMPTY.id(id.0).as_str());
    };
}

id!(
    /// The root of a task tree, which is the unit of consistency.
    RootTaskId, "task id"
);
id!(
    /// An emergency stop.
    LockId, "lock id"
);
id!(
    /// One lease within its task.
    LeaseKey, "lease id"
);

impl LockId {
    /// The resource name, `locks/{lock}`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("locks/{self}")
    }

    /// Parses a resource name, `locks/{lock}`.
    ///
    /// # Errors
    /// [`InvalidId`] if it is anything else.
    pub fn from_name(name: &str) -> Result<Self, InvalidId> {
        name.strip_prefix("locks/").and_then(|id| id.parse().ok()).ok_or(InvalidId("lock name"))
    }
}

/// A task. The text of a root is its root id; the text of a child is `{root}-{node}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    root: RootTaskId,
    node: Id,
}

impl TaskId {
    /// The root task of a tree.
    #[must_use]
    pub const fn root_of(root: RootTaskId) -> Self {
        Self { root, node: root.0 }
    }

    /// A task delegated somewhere below `root`.
    ///
    /// # Errors
    /// [`InvalidId`] if `node` is the root's own id.
    pub fn child_of(root: RootTaskId, node: Id) -> Result<Self, InvalidId> {
        if node == root.0 { Err(InvalidId("task id")) } else { Ok(Self { root, node }) }
    }

    /// The tree that owns this task.
    #[must_use]
    pub const fn root(&self) -> RootTaskId {
        self.root
    }

    /// The task's own part of its id: the last element of a token's `task` path.
    #[must_use]
    pub const fn node(&self) -> Id {
        self.node
    }

    /// Whether this is the root of its tree.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.node == self.root.0
    }

    /// The resource name, `tasks/{task}`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("tasks/{self}")
    }

    /// Parses a resource name, `tasks/{task}`.
    ///
    /// # Errors
    /// [`InvalidId`] if it is anything else.
    pub fn from_name(name: &str) -> Result<Self, InvalidId> {
        name.strip_prefix("tasks/").ok_or(InvalidId("task name"))?.parse()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Text::EMPTY.task(*self).as_str())
    }
}

impl FromStr for TaskId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text.split_once('-') {
            None => Ok(Self::root_of(text.parse()?)),
            Some((root, node)) => Self::child_of(root.parse()?, Id::parse(node).ok_or(InvalidId("task id"))?),
        }
    }
}

serde_as_text!(TaskId, id => Text::EMPTY.task(*id).as_str());

/// The record of one issued credential. Its text is its resource name, `tasks/{task}/leases/{lease}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId {
    /// The task it was issued for.
    pub task: TaskId,
    /// The lease within the task: a token's `jti`, an X.509-SVID's serial number.
    pub key: LeaseKey,
}

impl LeaseId {
    fn text(self) -> Text {
        Text::EMPTY.text("tasks/").task(self.task).text("/leases/").id(self.key.0)
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl FromStr for LeaseId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId("lease name");
        let (task, key) =
            text.strip_prefix("tasks/").and_then(|rest| rest.split_once("/leases/")).ok_or(invalid)?;
        Ok(Self { task: task.parse()?, key: key.parse()? })
    }
}

serde_as_text!(LeaseId, id => id.text().as_str());

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_read_as_it_was_written(root: [u8; 16], node: [u8; 16], key: [u8; 16]) {
            let root = RootTaskId(Id::from_bytes(root));
            prop_assert_eq!(root.to_string().parse::<RootTaskId>(), Ok(root));
            if let Ok(task) = TaskId::child_of(root, Id::from_bytes(node)) {
                prop_assert_eq!(task.to_string().parse::<TaskId>(), Ok(task));
                let lease = LeaseId { task, key: LeaseKey(Id::from_bytes(key)) };
                prop_assert_eq!(lease.to_string().parse::<LeaseId>(), Ok(lease));
            }
        }

        #[test]
        fn no_text_but_its_own_is_read_as_an_id(text in "[0-9a-zA-Z*%\\-]{0,60}") {
            if let Ok(id) = text.parse::<TaskId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let good = RootTaskId(Id::from_bytes([0xff; 16])).to_string();
        assert_eq!(good, "7zzzzzzzzzzzzzzzzzzzzzzzzz");
        for bad in [
            good.to_uppercase(),
            good.replacen('7', "8", 1),
            good.replacen('z', "u", 1),
            good.replacen('z', "o", 1),
            format!("{good}0"),
            format!("{good}-{good}"),
            format!(" {good}"),
            String::new(),
            "*".into(),
            "\u{661}".repeat(13),
        ] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad:?}");
        }
        assert!(TaskId::from_name(&good).is_err());
        assert!(TaskId::from_name(&format!("tasks/{good}")).is_ok());
        let lock: LockId = good.parse().unwrap();
        assert_eq!(LockId::from_name(&lock.name()), Ok(lock));
        assert!(LockId::from_name(&good).is_err() && LockId::from_name("locks/").is_err());
    }
}
