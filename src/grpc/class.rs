//! What kinds of calls there are, by what it would cost others to refuse them.

/// The one method that anybody may call: it tells nothing of anybody.
pub(super) const CHECK: &str = "Check";

/// A kind of call. Under overload the last are refused first (invariant R5), and a caller's calls of one kind never use up
/// what it may do of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(super) enum Class {
    /// The emergency stop, its lifting, without which nobody could work on, and ending what others hold.
    Revoke,
    /// What resource servers ask before they trust a credential; and probes, which cost nothing and whose refusal would
    /// have a busy daemon restarted.
    Introspect,
    /// Ending what is one's own.
    Complete,
    /// What makes new tasks and credentials.
    Issue,
    /// Reading, and what is no method at all.
    Read,
}

impl Class {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Read as usize + 1;

    /// The kind of the method with this path, and what the method is called; none if there is no such method.
    pub(super) fn of(path: &str) -> Option<(Self, &'static str)> {
        Some(match path {
            "/brevet.v1.LockService/CreateLock" => (Self::Revoke, "CreateLock"),
            "/brevet.v1.LockService/LiftLock" => (Self::Revoke, "LiftLock"),
            "/brevet.v1.LeaseService/RevokeLease" => (Self::Revoke, "RevokeLease"),
            "/brevet.v1.LeaseService/RevokeLeases" => (Self::Revoke, "RevokeLeases"),
            "/brevet.v1.RevocationService/IntrospectCredential" => (Self::Introspect, "IntrospectCredential"),
            "/brevet.v1.RevocationService/WatchRevocations" => (Self::Introspect, "WatchRevocations"),
            "/grpc.health.v1.Health/Check" => (Self::Introspect, CHECK),
            "/brevet.v1.TaskService/CompleteTask" => (Self::Complete, "CompleteTask"),
            "/brevet.v1.TaskService/FailTask" => (Self::Complete, "FailTask"),
            "/brevet.v1.TaskService/CancelTask" => (Self::Complete, "CancelTask"),
            "/brevet.v1.CredentialService/ReturnCredential" => (Self::Complete, "ReturnCredential"),
            "/brevet.v1.TaskService/CreateTask" => (Self::Issue, "CreateTask"),
            "/brevet.v1.CredentialService/IssueCredential" => (Self::Issue, "IssueCredential"),
            "/brevet.v1.CredentialService/RenewCredential" => (Self::Issue, "RenewCredential"),
            "/brevet.v1.CredentialService/DelegateTask" => (Self::Issue, "DelegateTask"),
            "/brevet.v1.TaskService/GetTask" => (Self::Read, "GetTask"),
            "/brevet.v1.TaskService/ListTasks" => (Self::Read, "ListTasks"),
            "/brevet.v1.LeaseService/GetLease" => (Self::Read, "GetLease"),
            "/brevet.v1.LeaseService/ListLeases" => (Self::Read, "ListLeases"),
            "/brevet.v1.LockService/GetLock" => (Self::Read, "GetLock"),
            "/brevet.v1.LockService/ListLocks" => (Self::Read, "ListLocks"),
            "/brevet.v1.AuditService/ListEvents" => (Self::Read, "ListEvents"),
            "/brevet.v1.AuditService/TailEvents" => (Self::Read, "TailEvents"),
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => {
                (Self::Read, "ServerReflectionInfo")
            }
            _ => return None,
        })
    }

    /// The name, the same in metric and document.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Introspect => "introspect",
            Self::Complete => "complete",
            Self::Issue => "issue",
            Self::Read => "read",
        }
    }

    /// Of sixteen parts of all that may be in flight, those that are there for this kind and for those before it.
    pub(super) const fn sixteenths(self) -> usize {
        match self {
            Self::Revoke => 16,
            Self::Introspect => 15,
            Self::Complete => 14,
            Self::Issue => 12,
            Self::Read => 8,
        }
    }
}

/// Whether a method's answer goes on for as long as there is something to tell.
pub(super) fn is_endless(method: &str) -> bool {
    matches!(method, "WatchRevocations" | "TailEvents" | "ServerReflectionInfo")
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn r5_every_method_has_its_kind_and_nothing_else_has_one() {
        let files = FileDescriptorSet::decode(brevet_api::FILE_DESCRIPTOR_SET).unwrap().file;
        let mut counts = [0; Class::COUNT];
        for file in files {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let (class, name) = Class::of(&path).unwrap_or_else(|| panic!("{path} has no kind"));
                    assert_eq!(name, method.name());
                    counts[class as usize] += 1;
                    assert_eq!(is_endless(name), method.server_streaming(), "{path}");
                }
            }
        }
        assert_eq!(counts, [4, 2, 4, 4, 8], "whoever adds a method says here of which kind it is");
        for path in ["", "/", "/CreateTask", "/brevet.v1.TaskService/CreateTask/", "/brevet.v1.TaskService/"]
        {
            assert_eq!(Class::of(path), None, "{path}");
        }
    }
}
