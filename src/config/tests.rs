use super::*;

const MINIMAL: &str = r#"
    trust_domain = "broker.example"
    issuer = "https://broker.example"
    state_directory = "state"
    policy_directory = "policies"
    [grpc]
    listen = "127.0.0.1:7443"
    [http]
    listen = "127.0.0.1:7080"
"#;

fn parse(text: &str, overrides: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let overrides = overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(Path::new("/etc/brevet/brevet.toml"), text, overrides)
}

#[test]
fn what_is_not_said_has_its_safe_default() {
    let config = parse(MINIMAL, &[]).unwrap();
    assert_eq!(config.limits.lease_lifetime_default(), Duration::from_secs(300));
    assert_eq!(config.limits.lease_lifetime_max(), Duration::from_secs(3_600));
    assert_eq!(config.limits.leases_live_per_task_max.get(), 64);
    assert_eq!(config.grpc.message_bytes_max.get(), 65_536);
    assert_eq!(config.grpc.limits().handshake_max, Duration::from_secs(5));
    // What is not configured is what the listeners have by themselves.
    assert_eq!(config.grpc.limits(), NetLimits::default());
    assert_eq!(config.http.limits(), crate::http::HttpLimits::default());
    assert!(!config.grpc.reflection);
    assert_eq!(config.state_directory, Path::new("/etc/brevet/state"));
}

#[test]
fn a_typo_is_refused_with_its_line() {
    let error = parse(&MINIMAL.replace("[http]", "[http]\nconections_max = 3"), &[]).unwrap_err();
    // It may be a secret in the wrong place, so that the line is all that is said of it.
    let line = MINIMAL.lines().position(|line| line.contains("[http]")).unwrap() + 2;
    let told = error.to_string();
    assert!(told.contains(&format!("line {line}: unknown field, expected one of")), "{told}");
    assert!(told.contains("`connections_max`") && !told.contains("conections_max"), "{told}");
    assert!(parse(&format!("{MINIMAL}\n[limit]\nx = 1"), &[]).is_err());
}

#[test]
fn values_out_of_range_are_refused() {
    for (bad, what) in [
        (format!("{MINIMAL}\n[limits]\nlease_lifetime_seconds_max = 0"), "zero"),
        (format!("{MINIMAL}\n[limits]\nlease_lifetime_seconds_max = 3601"), "above an hour"),
        (format!("{MINIMAL}\n[limits]\nlease_lifetime_seconds_max = 60"), "default above maximum"),
        (MINIMAL.replace("127.0.0.1:7080", "0.0.0.0:7080"), "plain http beyond this machine"),
        (MINIMAL.replace("\"https://broker.example\"", "\"http://broker.example\""), "plain issuer"),
        (MINIMAL.replace("\"https://broker.example\"", "\"https://broker.example/?a\""), "query"),
        (MINIMAL.replace("[http]", "handshake_bytes_max = 16383\n[http]"), "no chain fits"),
        (MINIMAL.replace("[http]", "stream_window_bytes = 2147483648\n[http]"), "no such window"),
        (MINIMAL.replace("[http]", "connection_window_bytes = 2147483648\n[http]"), "no such window"),
        (MINIMAL.replace("[http]", "[http]\nheader_fields_max = 1001"), "room for any number"),
        (MINIMAL.replace("[http]", "dns_names = [\"bad name_\"]\n[http]"), "no DNS name"),
        (MINIMAL.replace("[http]", "handshake_bytes_max = 1048577\n[http]"), "endless handshakes"),
        (MINIMAL.replace("[http]", "handshake_stage_millis_max = 5001\n[http]"), "stage above the whole"),
        (MINIMAL.replace("[http]", "strangers_message_bytes_max = 65537\n[http]"), "strangers above callers"),
        (format!("{MINIMAL}\n[limits]\nretry_delay_millis_min = 10000"), "all come back at once"),
        (format!("{MINIMAL}\n[limits]\nretry_delays_apart_millis = 9501"), "every other at once"),
        (format!("{MINIMAL}\n[limits]\nretry_delay_millis_max = 60001"), "kept out by a delay"),
        (format!("{MINIMAL}\n[local]\nconnections_max = 0"), "no emergency stop"),
        (
            format!("{MINIMAL}\n[[trust]]\ntrust_domain = \"broker.example\"\nbundle = \"b\""),
            "own trust domain",
        ),
    ] {
        let told = parse(&bad, &[]).expect_err(what).to_string();
        // For its value, and not for a key that there is not.
        assert!(!told.contains("unknown field") && !told.contains("invalid type"), "{what}: {told}");
    }
}

#[test]
fn r1_r2_what_a_client_may_cost_is_what_the_file_says() {
    let text =
        MINIMAL.replace("[http]", "[http]\nconnection_grace_seconds_max = 7\ndrain_seconds_max = 8").replace(
            "[grpc]",
            "[local]
             connections_max = 2
             [limits]
             keys_proven_per_connection_max = 3
             [grpc]
             handshake_bytes_max = 16384
             handshake_stage_millis_max = 3000
             handshake_refused_seconds_max = 4
             call_refused_seconds_max = 6
             strangers_message_bytes_max = 9",
        );
    let config = parse(&text, &[]).unwrap();
    let (grpc, calls, http) = (config.grpc.limits(), config.grpc.call_limits(), config.http.limits());
    assert_eq!(grpc.handshake_bytes_max, 16_384);
    let times = [
        grpc.handshake_stage_max,
        grpc.handshake_refused_max,
        calls.refused_max,
        http.connection_grace,
        http.drain_max,
    ];
    assert_eq!(times.map(|time| time.as_secs()), [3, 4, 6, 7, 8]);
    assert_eq!((calls.strangers_message_bytes_max, config.limits.keys_proven_max()), (9, 3));
    let root = config.root_limits();
    let places = [root.connections_max, root.connections_per_peer_max, root.connections_per_network_max];
    assert_eq!(places, [2; 3]);
}

#[test]
fn the_environment_overrides_single_keys() {
    let config = parse(
        MINIMAL,
        &[("BREVET__LIMITS__LEASE_LIFETIME_SECONDS_MAX", "600"), ("BREVET__GRPC__LISTEN", "127.0.0.1:1")],
    )
    .unwrap();
    assert_eq!(config.limits.lease_lifetime_max(), Duration::from_secs(600));
    assert_eq!(config.grpc.listen.port(), 1);
    assert!(parse(MINIMAL, &[("BREVET__LIMITS__LEASE_LIFETIME", "600")]).is_err());
    assert!(parse(MINIMAL, &[("BREVET__ISSUER__X", "600")]).is_err());
}

#[test]
fn paths_are_relative_to_the_file() {
    let text = MINIMAL.replace("[grpc]", "[grpc]\nclient_certificate = \"optional\"")
        + r#"
            [[trust]]
            trust_domain = "a.example"
            bundle = "a.json"
            [[oidc]]
            issuer = "https://issuer.example"
            trust_domain = "b.example"
            jwks = "keys/b.json"
            ca = "/b.pem"
            subjects = { robot = "/robot" }
        "#;
    let config = parse(&text, &[]).unwrap();
    let files: Vec<_> = config.trust_files().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(files, ["/etc/brevet/a.json", "/etc/brevet/keys/b.json", "/b.pem"]);
}
