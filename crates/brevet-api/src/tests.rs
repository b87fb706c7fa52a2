use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::FILE_DESCRIPTOR_SET;
use crate::v1::{
    Constraint, CreateTaskResponse, Credential, DelegateTaskRequest, DelegateTaskResponse,
    IntrospectCredentialRequest, IssueCredentialRequest, Permission, RenewCredentialRequest,
    ReturnCredentialRequest, Value, constraint, value,
};

fn our_files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files: Vec<_> = set.file.into_iter().filter(|file| file.package() == "brevet.v1").collect();
    assert!(!files.is_empty());
    files
}

/// The source path and the name of everything declared in a file: the numbers are those of `descriptor.proto`.
fn declarations(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    fn join(path: &[i32], field: i32, index: usize) -> Vec<i32> {
        [path, &[field, i32::try_from(index).unwrap()]].concat()
    }
    fn enumeration(path: &[i32], scope: &str, it: &EnumDescriptorProto, found: &mut Vec<(Vec<i32>, String)>) {
        let name = format!("{scope}.{}", it.name());
        found.extend(
            it.value.iter().enumerate().map(|(i, v)| (join(path, 2, i), format!("{name}.{}", v.name()))),
        );
        found.push((path.to_vec(), name));
    }
    fn message(path: &[i32], scope: &str, it: &DescriptorProto, found: &mut Vec<(Vec<i32>, String)>) {
        // The entry type of a map is the compiler's own.
        if it.options.as_ref().is_some_and(|options| options.map_entry()) {
            return;
        }
        let name = format!("{scope}.{}", it.name());
        for (i, field) in it.field.iter().enumerate() {
            found.push((join(path, 2, i), format!("{name}.{}", field.name())));
        }
        for (i, nested) in it.nested_type.iter().enumerate() {
            message(&join(path, 3, i), &name, nested, found);
        }
        for (i, nested) in it.enum_type.iter().enumerate() {
            enumeration(&join(path, 4, i), &name, nested, found);
        }
        for (i, oneof) in it.oneof_decl.iter().enumerate() {
            // An `optional` field is a oneof of its own, which no line of the source declares.
            let synthetic =
                it.field.iter().any(|f| f.proto3_optional() && f.oneof_index == i32::try_from(i).ok());
            if !synthetic {
                found.push((join(path, 8, i), format!("{name}.{}", oneof.name())));
            }
        }
        found.push((path.to_vec(), name));
    }

    let mut found = vec![(vec![12], format!("{} itself", file.name()))];
    for (i, it) in file.message_type.iter().enumerate() {
        message(&[4, i32::try_from(i).unwrap()], file.package(), it, &mut found);
    }
    for (i, it) in file.enum_type.iter().enumerate() {
        enumeration(&[5, i32::try_from(i).unwrap()], file.package(), it, &mut found);
    }
    for (i, it) in file.service.iter().enumerate() {
        let path = [6, i32::try_from(i).unwrap()];
        let name = format!("{}.{}", file.package(), it.name());
        for (j, method) in it.method.iter().enumerate() {
            found.push((join(&path, 2, j), format!("{name}.{}", method.name())));
        }
        found.push((path.to_vec(), name));
    }
    found
}

#[test]
fn everything_declared_is_commented() {
    let mut uncommented = Vec::new();
    let mut count = 0;
    for file in our_files() {
        let comments: BTreeSet<&[i32]> = file
            .source_code_info
            .as_ref()
            .unwrap()
            .location
            .iter()
            .filter(|location| {
                // What is said of the file itself stands apart from the `syntax` that follows it.
                let file = location.path == [12] && !location.leading_detached_comments.is_empty();
                file || location.leading_comments().trim().len() > 4
            })
            .map(|location| location.path.as_slice())
            .collect();
        for (path, name) in declarations(&file) {
            count += 1;
            if !comments.contains(path.as_slice()) {
                uncommented.push(name);
            }
        }
    }
    assert!(count > 100, "the walk found only {count} declarations");
    assert_eq!(uncommented, Vec::<String>::new());
}

#[test]
fn the_services_are_these() {
    let services: BTreeMap<String, Vec<String>> = our_files()
        .iter()
        .flat_map(|file| &file.service)
        .map(|it| (it.name().to_owned(), it.method.iter().map(|m| m.name().to_owned()).collect()))
        .collect();
    let expected = [
        ("AuditService", vec!["ListEvents", "TailEvents"]),
        ("CredentialService", vec!["IssueCredential", "RenewCredential", "ReturnCredential", "DelegateTask"]),
        ("LeaseService", vec!["GetLease", "ListLeases", "RevokeLease", "RevokeLeases"]),
        ("LockService", vec!["CreateLock", "GetLock", "ListLocks", "LiftLock"]),
        ("RevocationService", vec!["IntrospectCredential", "WatchRevocations"]),
        ("TaskService", vec!["CreateTask", "GetTask", "ListTasks", "CompleteTask", "FailTask", "CancelTask"]),
    ];
    let expected: BTreeMap<String, Vec<String>> = expected
        .into_iter()
        .map(|(name, methods)| (name.to_owned(), methods.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(services, expected);
}

#[test]
fn an_enum_begins_with_what_was_not_said() {
    for file in our_files() {
        let nested = file.message_type.iter().flat_map(|message| &message.enum_type);
        for it in file.enum_type.iter().chain(nested) {
            let first = it.value.first().unwrap();
            assert!(first.number() == 0 && first.name().ends_with("_UNSPECIFIED"), "{}", it.name());
        }
    }
}

#[test]
fn no_debug_output_shows_a_secret() {
    let secret = || "s3cr3t".to_owned();
    let shown = [
        format!("{:?}", CreateTaskResponse { task: None, claim: Some(secret()) }),
        format!("{:?}", Credential { token: secret(), ..Credential::default() }),
        format!(
            "{:?}",
            IssueCredentialRequest {
                claim: Some(secret()),
                dpop_proof: Some(secret()),
                ..IssueCredentialRequest::default()
            }
        ),
        format!("{:?}", IntrospectCredentialRequest { token: secret(), min_revision: None }),
        format!(
            "{:?}",
            RenewCredentialRequest { dpop_proof: Some(secret()), ..RenewCredentialRequest::default() }
        ),
        format!(
            "{:?}",
            ReturnCredentialRequest { dpop_proof: Some(secret()), ..ReturnCredentialRequest::default() }
        ),
        format!("{:?}", DelegateTaskRequest { dpop_proof: Some(secret()), ..DelegateTaskRequest::default() }),
        format!("{:?}", DelegateTaskResponse { task: None, claim: Some(secret()) }),
    ];
    for text in shown {
        assert!(text.contains("[redacted]") && !text.contains("s3cr3t"), "{text}");
    }
}

#[test]
fn equal_messages_are_equal_bytes() {
    let permission = |names: &[&str]| Permission {
        audience: "crm".into(),
        resource: "customers/42".into(),
        actions: vec!["read".into()],
        constraints: names
            .iter()
            .map(|&name| {
                let value = Value { kind: Some(value::Kind::Integer(7)) };
                let one_of = constraint::OneOf { values: vec![value] };
                (name.to_owned(), Constraint { kind: Some(constraint::Kind::OneOf(one_of)) })
            })
            .collect(),
    };
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut reversed = names;
    reversed.reverse();
    assert_eq!(permission(&names).encode_to_vec(), permission(&reversed).encode_to_vec());
}
