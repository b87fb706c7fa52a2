//! Live reload: what people write in files decides the next request, or nothing changes.

use std::fs;

use brevet_api::v1;
use brevet_api::v1::selector::Kind;
use brevet_core::fact::{ConfigurationPart, Fact};
use brevet_testkit::daemon::refused_start;
use tonic::Code;

use crate::world::{
    AGENT, OPERATOR, ORCHESTRATOR, RESOURCE_SERVER, World, binary, eventually, issue, replace,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p3_policies_take_effect_when_their_files_change_and_broken_ones_never() {
    let world = World::start();
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;
    let token = agent.issue(issue(&task, "before")).await.ok().credential.unwrap().token;
    agent.create(world.create("own")).await.refused(Code::PermissionDenied, "policy_denied");

    // A permit more.
    let own = world.path("policies/own-tasks.cedar");
    let permit = r#"@id("agents-create-own-tasks") permit (principal, action == Brevet::Action::"CreateTask", resource)
        when { principal.roles.contains("agent") };"#;
    replace(&own, permit);
    world.daemon.hang_up();
    eventually("an agent may open a task", || async { agent.create(world.create("own")).await.is_ok() })
        .await;

    // A forbid more.
    let stop = world.path("policies/stop.cedar");
    let forbid = r#"@id("stop") forbid (principal, action == Brevet::Action::"IssueCredential", resource);"#;
    replace(&stop, forbid);
    world.daemon.hang_up();
    let mut tries = 0;
    let denied = loop {
        match agent.issue(issue(&task, &format!("try-{tries}"))).await.result() {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(status) => break status,
        }
        tries += 1;
        assert!(tries < 60, "the forbid does not take effect");
    };
    assert_eq!(denied.code(), Code::PermissionDenied);
    // What was issued before lives on.
    assert!(world.client(RESOURCE_SERVER).await.is_active(&token).await);

    // Policies that do not parse, or do not fit the schema, change nothing.
    for broken in ["permit (", r#"permit (principal, action == Brevet::Action::"Fly", resource);"#, "\u{0}"] {
        let refused = world.log().matches("stays in force").count();
        replace(&stop, broken);
        world.daemon.hang_up();
        eventually("the broken policy is refused", || async {
            world.log().matches("stays in force").count() > refused
        })
        .await;
        let answer = agent.issue(issue(&task, "broken")).await.result().unwrap_err();
        assert_eq!(answer.code(), Code::PermissionDenied);
    }
    fs::remove_file(&stop).unwrap();
    world.daemon.hang_up();
    eventually("the forbid is gone", || async { agent.issue(issue(&task, "after")).await.is_ok() }).await;
    drop(agent);
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_registry_takes_effect_when_its_file_changes_and_a_typo_never() {
    let world = World::start();
    let orchestrator = world.client(ORCHESTRATOR).await;
    let typed = |request_id: &str| v1::CreateTaskRequest {
        task_type: "translate".to_owned(),
        ..world.create(request_id)
    };
    orchestrator.create(typed("one")).await.refused(Code::PermissionDenied, "not_registered");

    world.configure(|config| drop(config.insert("task_typos".to_owned(), true.into())));
    world.daemon.hang_up();
    eventually("the typo is refused", || async { world.log().contains("unknown field") }).await;
    orchestrator.create(typed("two")).await.refused(Code::PermissionDenied, "not_registered");

    world.configure(|config| {
        config.remove("task_typos");
        let types = config["orchestrators"][0]["task_types"].as_array_mut().unwrap();
        types.push("translate".into());
    });
    world.daemon.hang_up();
    eventually("the new type is known", || async { orchestrator.create(typed("three")).await.is_ok() }).await;

    world.configure(|config| drop(config.remove("orchestrators")));
    world.daemon.hang_up();
    let mut number = 0;
    let denied = loop {
        match orchestrator.create(world.create(&format!("try-{number}"))).await.result() {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            Err(status) => break status,
        }
        number += 1;
        assert!(number < 500, "the orchestrator stays registered");
    };
    assert_eq!(denied.code(), Code::PermissionDenied);
    drop(orchestrator);
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bundle_that_is_no_file_is_refused_and_holds_nothing_up() {
    let world = World::start();
    let bundle = world.path("workloads.pem");
    let text = fs::read(&bundle).unwrap();
    fs::remove_file(&bundle).unwrap();
    nix::unistd::mkfifo(&bundle, nix::sys::stat::Mode::S_IRWXU).unwrap();
    world.daemon.hang_up();
    let refused = || async { world.log().contains("no regular file") };
    eventually("the pipe is refused", refused).await;
    fs::remove_file(&bundle).unwrap();
    fs::write(&bundle, text).unwrap();
    world.daemon.hang_up();
    eventually("the bundle is read", || async { world.log().contains("nothing that is in force changed") })
        .await;
    world.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_audience_that_lost_its_enforcer_tells_it_nothing_more() {
    let world = World::start();
    let task = world.open_task(world.create("open")).await.name;
    let token = world.client(AGENT).await.issue(issue(&task, "one")).await.ok().credential.unwrap().token;
    let server = world.client(RESOURCE_SERVER).await;
    assert!(server.is_active(&token).await);
    world.configure(|config| {
        config["audiences"][0]["enforcers"] = toml::Value::from(vec!["spiffe://workloads.dev.example/other"]);
    });
    world.daemon.hang_up();
    eventually("the token is inactive to it", || async { !server.is_active(&token).await }).await;
    drop(server);
    world.finish();
}

/// Without it the lock would bind nobody, the task would be nobody's to end, and verifiers would forget what they knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn t6_l6_nothing_that_exists_becomes_another_tenants() {
    let mut world = World::start();
    let agent = world.client(AGENT).await;
    let task = world.open_task(world.create("open")).await.name;
    let token = agent.issue(issue(&task, "before")).await.ok().credential.unwrap().token;
    let stopped = Kind::Agent("spiffe://workloads.dev.example/agent/a".to_owned());
    world.client(OPERATOR).await.stop("stop", stopped).await.ok();

    // Until now everything was of the tenant that has no name in the configuration.
    let before = fs::read_to_string(world.path("brevet.toml")).unwrap();
    world.configure(|config| {
        let tenant = toml::toml! {
            name = "acme"
            trust_domains = ["workloads.dev.example", "functions.dev.example"]
        };
        config.insert("tenants".to_owned(), toml::Value::Array(vec![tenant.into()]));
        for audience in config["audiences"].as_array_mut().unwrap() {
            audience.as_table_mut().unwrap().insert("tenant".to_owned(), "acme".into());
        }
    });
    world.daemon.hang_up();
    eventually("it is refused", || async { world.log().contains("another tenant's") }).await;
    let after = world.client(ORCHESTRATOR).await.create(world.create("after")).await.result().unwrap_err();
    assert!(after.message().contains("lock"), "{after:?}");
    assert!(!world.client(RESOURCE_SERVER).await.is_active(&token).await);
    // A start is no way around.
    drop(agent);
    assert!(world.daemon.stop().success());
    let refused = refused_start(binary(), &world.path("brevet.toml"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another tenant's"));
    replace(&world.path("brevet.toml"), &before);
    world.daemon.restart();
    let refused = |fact: &Fact| match fact {
        Fact::ConfigurationRefused { part: ConfigurationPart::Registry, reason } => {
            reason.as_str() == "tenant_changed"
        }
        _ => false,
    };
    assert!(world.stop().iter().any(|written| refused(&written.fact)));
}
