//! Every attack there is a number for, and by what it is held.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{chains, proofs, shown};

/// One attack of the list.
struct Attack {
    number: u8,
    shown: Option<shown::Cases>,
    connecting: Option<chains::Cases>,
    /// Tests that hold it, where the runner does not or not alone: a file, and a function in it.
    tests: &'static [&'static str],
    /// What has to be built before the rest of it can be tried.
    waits_for: Option<&'static str>,
}

impl Attack {
    const fn new(number: u8) -> Self {
        Self { number, shown: None, connecting: None, tests: &[], waits_for: None }
    }

    /// By what is shown with calls.
    const fn shown(self, cases: shown::Cases) -> Self {
        Self { shown: Some(cases), ..self }
    }

    /// By certificates.
    const fn connecting(self, cases: chains::Cases) -> Self {
        Self { connecting: Some(cases), ..self }
    }

    const fn held_by(self, tests: &'static [&'static str]) -> Self {
        Self { tests, ..self }
    }

    const fn waits_for(self, feature: &'static str) -> Self {
        Self { waits_for: Some(feature), ..self }
    }

    /// The last column of the document.
    fn state(&self) -> String {
        let runner = (self.shown.is_some() || self.connecting.is_some()).then(|| "runner".to_owned());
        let tests = (!self.tests.is_empty()).then(|| "tests".to_owned());
        let waits = self.waits_for.map(|feature| format!("waits for {feature}"));
        [runner, tests, waits].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[rustfmt::skip]
const ATTACKS: [Attack; 88] = [
    Attack::new(1).shown(shown::algorithms).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(2).shown(shown::public_keys_as_secrets),
    Attack::new(3).shown(shown::other_algorithms).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(4).shown(shown::key_names).held_by(&["tests/attacks/suite.rs::a_hostile_set_of_keys_is_refused_and_the_old_one_stays_in_force"]),
    Attack::new(5).shown(shown::pointers).held_by(&["tests/attacks/races.rs::nobody_is_led_elsewhere", "tests/attacks/issuer.rs::a_hostile_issuer_harms_neither_the_daemon_nor_another_issuer", "tests/e2e/discovery.rs::i5_keys_elsewhere_are_taken_only_while_the_owner_names_their_host", "src/discovery/tests.rs::i5_an_issuer_elsewhere_leads_to_nothing_that_listens_here"]),
    Attack::new(6).shown(shown::own_keys).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(7).shown(shown::extensions).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(8).shown(shown::further_headers).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(9).shown(shown::types).held_by(&["tests/e2e/identity.rs::t8_a_task_token_in_the_metadata_makes_nobody_a_caller"]),
    Attack::new(10).shown(shown::serializations).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(11).shown(shown::encodings).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(12).shown(shown::json_texts).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(13).shown(shown::times_that_are_none).held_by(&["tests/verify.rs::i1_every_token_proof_and_key_set_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(14).shown(shown::times_past).held_by(&["tests/verify.rs::i1_every_token_proof_and_key_set_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(15).shown(shown::times_to_come).held_by(&["tests/verify.rs::i1_every_token_proof_and_key_set_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(16).shown(shown::audiences).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(17).shown(shown::issuers),
    Attack::new(18).shown(shown::subjects).held_by(&["tests/attacks/suite.rs::tokens_of_the_suite_are_refused_for_the_reason_that_their_maker_gives"]),
    Attack::new(19).shown(shown::signatures).held_by(&["tests/attacks/races.rs::another_signature_of_the_same_is_the_same"]),
    Attack::new(20).shown(proofs::edwards_keys),
    Attack::new(21).held_by(&["tests/e2e/bearer.rs::keys_that_are_refused_change_nothing_and_are_on_record", "tests/attacks/suite.rs::a_hostile_set_of_keys_is_refused_and_the_old_one_stays_in_force", "tests/verify.rs::i1_every_token_proof_and_key_set_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(22).held_by(&["tests/e2e/bearer.rs::keys_that_are_refused_change_nothing_and_are_on_record", "tests/attacks/issuer.rs::a_hostile_issuer_harms_neither_the_daemon_nor_another_issuer", "tests/attacks/suite.rs::a_hostile_set_of_keys_is_refused_and_the_old_one_stays_in_force", "tests/verify.rs::i1_every_token_proof_and_key_set_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(23).held_by(&["tests/e2e/bearer.rs::keys_that_are_left_out_are_named_in_the_log", "crates/brevet-identity/src/jwk_set.rs::an_element_of_another_kind_is_left_out_with_its_reason", "tests/verify.rs::i1_every_token_proof_and_key_set_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(24).held_by(&["tests/e2e/wire.rs::headers_are_bounded"]),
    Attack::new(25).held_by(&["tests/e2e/bearer.rs::a_request_shows_one_token_with_one_proof_made_for_it_and_no_certificate"]),
    Attack::new(26).held_by(&["tests/attacks/races.rs::a_proof_counts_once_whatever_the_connection_and_the_method", "tests/attacks/races.rs::a_proof_by_a_fast_clock_counts_once_across_a_crash"]).waits_for("tokens that may be used once"),
    Attack::new(27).shown(proofs::others).held_by(&["tests/attacks/suite.rs::proofs_of_the_suite_are_refused_for_the_reason_that_their_maker_gives", "tests/e2e/holder.rs::l8_a_proof_of_the_holder_key_counts_once_for_this_method_and_now"]).waits_for("nonces for proofs"),
    Attack::new(28).shown(shown::confirmations),
    Attack::new(29).held_by(&["tests/e2e/tenants.rs::t7_a_tenant_sees_ends_and_stops_nothing_of_another_by_any_method"]),
    Attack::new(30).held_by(&["tests/e2e/task.rs::t1_an_ended_task_is_final", "tests/e2e/introspect.rs::what_is_no_live_token_of_this_broker_is_inactive"]).waits_for("CheckAction"),
    Attack::new(31).connecting(chains::unknown).held_by(&["tests/e2e/wire.rs::a_connection_without_a_certificate_or_a_protocol_gets_no_answer"]),
    Attack::new(32).connecting(chains::names).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(33).connecting(chains::ids).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(34).connecting(chains::schemes).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(35).connecting(chains::foreign).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(36).connecting(chains::profiles).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(37).connecting(chains::authorities).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(38).connecting(chains::times).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(39).connecting(chains::constraints).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(40).connecting(chains::encodings).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(41).connecting(chains::long_chains).held_by(&["tests/verify.rs::i2_every_chain_gets_the_verdict_that_its_maker_asks_for"]),
    Attack::new(42).held_by(&["tests/e2e/svid.rs::an_svid_says_who_works_on_which_task_while_its_lease_lives"]),
    Attack::new(43).held_by(&["tests/e2e/svid.rs::a_certification_request_that_is_not_whole_is_refused", "tests/e2e/svid.rs::none_of_the_brokers_own_keys_is_certified", "tests/e2e/svid.rs::l8_an_svid_is_for_the_holder_key_and_no_other"]),
    Attack::new(44).held_by(&["tests/e2e/svid.rs::a_certification_request_that_is_not_whole_is_refused", "crates/brevet-identity/src/csr/tests.rs::a_request_has_a_limit_before_it_is_looked_at"]),
    Attack::new(45).held_by(&["tests/attacks/races.rs::a_stream_that_a_token_opened_ends_with_the_trust_in_its_authority", "tests/e2e/identity.rs::a_connection_does_not_outlive_its_certificate", "tests/e2e/identity.rs::an_identity_is_judged_again_when_its_authority_goes", "tests/e2e/watch.rs::w8_a_stream_ends_with_the_identity_that_it_was_opened_with", "crates/brevet-identity/src/tls/tests.rs::nothing_is_resumed_and_a_new_trust_binds_at_once"]),
    Attack::new(46).held_by(&["tests/e2e/renew.rs::l5_nothing_is_renewed_for_another_or_of_what_has_ended", "tests/e2e/svid.rs::l5_a_renewed_svid_is_for_the_same_task_and_key"]),
    Attack::new(47).held_by(&["tests/e2e/tenants.rs::t7_a_tenant_sees_ends_and_stops_nothing_of_another_by_any_method", "tests/e2e/renew.rs::l5_nothing_is_renewed_for_another_or_of_what_has_ended"]),
    Attack::new(48).held_by(&["tests/e2e/shape.rs::a_name_is_malformed_or_unknown_and_never_another_spelling", "tests/e2e/every_method.rs::every_name_is_malformed_or_unknown_where_it_is_not_one"]),
    Attack::new(49).held_by(&["tests/e2e/shape.rs::odd_strings_in_any_field_of_a_task_are_refused", "tests/e2e/shape.rs::odd_strings_in_a_request_for_a_credential_are_refused"]),
    Attack::new(50).held_by(&["tests/e2e/shape.rs::odd_strings_in_any_field_of_a_task_are_refused", "tests/e2e/canaries.rs::u5_what_stands_where_it_has_no_business_is_repeated_nowhere"]),
    Attack::new(51).held_by(&["tests/e2e/shape.rs::values_out_of_range_and_empty_or_swollen_sets_are_refused", "tests/e2e/limits.rs::no_lifetime_is_shorter_than_a_second"]),
    Attack::new(52).held_by(&["tests/e2e/delegate.rs::d1_a_child_ends_with_its_parent_at_the_latest", "tests/e2e/delegate.rs::d2_a_child_reaches_no_further_than_its_parent_and_its_agent", "tests/e2e/delegate.rs::d4_nothing_is_delegated_deeper_than_the_limit"]).waits_for("budgets"),
    Attack::new(53).held_by(&["tests/e2e/delegate.rs::l8_a_part_is_delegated_by_the_holder_of_the_task_alone", "tests/e2e/delegate.rs::d5_the_end_of_a_task_is_the_end_of_everything_below_it_in_one_record", "tests/e2e/delegate.rs::d6_every_hop_is_a_record_of_its_own_linked_to_the_one_before"]),
    Attack::new(54).waits_for("budgets"),
    Attack::new(55).waits_for("approvals"),
    Attack::new(56).waits_for("break-glass"),
    Attack::new(57).held_by(&["tests/e2e/task.rs::only_an_owner_ends_a_task_and_its_agent_does_not_cancel_it", "tests/e2e/task.rs::t1_an_ended_task_is_final"]),
    Attack::new(58).held_by(&["tests/e2e/limits.rs::l11_a_quota_of_ten_counts_live_leases_only", "tests/e2e/limits.rs::l11_of_two_hundred_at_once_exactly_the_quota_is_issued"]),
    Attack::new(59).held_by(&["tests/e2e/task.rs::t4_a_credential_that_races_its_tasks_end_is_ended_with_it_or_never_was"]),
    Attack::new(60).held_by(&["tests/e2e/task.rs::l9_the_same_request_opens_one_task_and_another_with_its_name_none", "tests/e2e/credential.rs::l9_a_retry_gets_the_same_credential_across_a_restart_and_another_request_none"]),
    Attack::new(61).held_by(&["tests/e2e/wire.rs::what_is_no_grpc_or_is_compressed_is_refused_before_it_is_read", "tests/e2e/wire.rs::headers_are_bounded", "tests/e2e/wire.rs::reflection_is_there_only_by_configuration", "tests/e2e/wire.rs::whoever_gets_through_the_handshake_is_told_that_the_daemon_serves"]),
    Attack::new(62).held_by(&["tests/e2e/wire.rs::u1_bytes_that_are_no_request_are_refused_and_recorded_and_harm_nothing", "tests/e2e/every_method.rs::u1_bytes_that_are_no_message_are_refused_and_recorded_by_every_method"]),
    Attack::new(63).waits_for("CheckAction"),
    Attack::new(64).held_by(&["crates/brevet-policy/src/tests/load.rs::p5_a_policy_is_bounded", "tests/e2e/reload.rs::p3_policies_take_effect_when_their_files_change_and_broken_ones_never"]),
    Attack::new(65).held_by(&["tests/e2e/restart.rs::what_everybody_may_write_permits_nothing"]).waits_for("signed policies"),
    Attack::new(66).held_by(&["tests/e2e/canaries.rs::u5_what_stands_where_it_has_no_business_is_repeated_nowhere", "tests/e2e/secrets.rs::l12_u5_no_secret_is_in_anything_that_the_daemon_says"]),
    Attack::new(67).held_by(&["tests/attacks/races.rs::no_caller_makes_the_metrics_grow"]),
    Attack::new(68).held_by(&["tests/e2e/task.rs::unknown_and_foreign_tasks_are_the_same_to_the_byte"]),
    Attack::new(69).held_by(&["tests/e2e/hardening.rs::l12_no_process_of_the_same_user_reads_one_that_holds_keys", "tests/e2e/hardening.rs::l12_a_process_that_crashes_leaves_no_core"]),
    Attack::new(70).held_by(&["tests/e2e/root_socket.rs::the_root_socket_serves_nobody_but_its_user_and_root", "tests/e2e/root_socket.rs::a_root_socket_that_others_could_replace_is_refused_at_the_start", "tests/e2e/restart.rs::what_others_could_read_or_replace_is_refused"]),
    Attack::new(71).held_by(&["tests/e2e/restart.rs::what_others_could_read_or_replace_is_refused", "tests/e2e/restart.rs::a_configuration_with_a_fault_is_refused_with_its_place"]),
    Attack::new(72).held_by(&["tests/e2e/restart.rs::u3_a_damaged_or_older_database_is_refused_and_the_good_one_still_starts", "tests/cli.rs::an_auditor_verifies_a_copy_and_sees_what_was_done_to_it"]),
    Attack::new(73).held_by(&["tests/e2e/bearer.rs::calls_over_one_connection_are_each_their_own_callers", "tests/e2e/identity.rs::identities_of_two_connections_never_mix"]),
    Attack::new(74).held_by(&["tests/e2e/wire.rs::u1_bytes_that_are_no_request_are_refused_and_recorded_and_harm_nothing", "tests/e2e/wire.rs::u1_what_is_no_request_is_recorded_at_the_root_socket_too"]),
    Attack::new(75).held_by(&["tests/e2e/watch.rs::w5_what_is_no_beginning_no_nonce_or_no_cursor_of_this_journal_is_refused", "tests/e2e/audit.rs::w5_a_stream_goes_on_behind_its_cursor_or_says_why_not"]),
    Attack::new(76).shown(shown::old_or_wide).held_by(&["tests/e2e/bearer.rs::i3_a_token_is_its_first_holder_s_across_a_crash", "tests/attacks/races.rs::a_token_that_is_shown_with_many_keys_at_once_is_bound_to_one", "tests/attacks/races.rs::a_thief_takes_nothing_from_the_owner_of_a_token"]),
    Attack::new(77).shown(shown::own_credentials).held_by(&["tests/e2e/jwt_svid.rs::t8_it_is_no_task_token_and_no_callers_identity", "tests/e2e/identity.rs::t8_what_the_broker_minted_authenticates_no_caller", "tests/e2e/identity.rs::t8_a_task_token_in_the_metadata_makes_nobody_a_caller", "tests/e2e/svid.rs::t8_the_svid_of_a_task_authenticates_no_caller"]),
    Attack::new(78).held_by(&["tests/e2e/holder.rs::l8_another_replica_of_the_agent_finds_no_task"]),
    Attack::new(79).waits_for("grants of delegators"),
    Attack::new(80).held_by(&["crates/brevet-core/src/request/tests.rs::the_agent_can_only_worsen_the_origin_of_its_prompt", "crates/brevet-policy/src/tests/decision.rs::p4_an_origin_that_nobody_vouches_for_is_the_worst"]),
    Attack::new(81).held_by(&["tests/e2e/introspect.rs::t7_only_the_enforcer_of_an_audience_learns_of_its_tokens"]).waits_for("CheckAction"),
    Attack::new(82).waits_for("CheckAction"),
    Attack::new(83).held_by(&["tests/e2e/shape.rs::odd_strings_in_a_request_for_a_credential_are_refused"]).waits_for("tools"),
    Attack::new(84).held_by(&["tests/e2e/lock.rs::t6_l6_a_lock_on_tasks_kills_what_it_selects_for_ever_and_nothing_beside", "tests/e2e/lock.rs::t6_an_issue_that_races_a_lock_is_killed_by_it_or_never_was", "tests/e2e/root_socket.rs::t6_u1_a_stop_of_everything_is_lifted_over_the_root_socket_which_leaves_its_record_first"]),
    Attack::new(85).waits_for("approvals"),
    Attack::new(86).held_by(&["tests/e2e/quota.rs::l11_an_opener_keeps_so_many_tasks_and_children_are_charged_to_who_delegates"]),
    Attack::new(87).held_by(&["tests/e2e/restart.rs::u3_a_damaged_or_older_database_is_refused_and_the_good_one_still_starts", "crates/brevet-journal/tests/journal/open.rs::l6_an_older_copy_beside_a_newer_mark_is_refused", "tests/e2e/watch.rs::w5_what_is_no_beginning_no_nonce_or_no_cursor_of_this_journal_is_refused"]),
    Attack::new(88).held_by(&["tests/e2e/task.rs::a_task_is_opened_only_as_it_is_registered"]).waits_for("registered rates, groups of delegators"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_proves_nobody_is_refused_and_recorded_whatever_is_shown() {
    shown::run(ATTACKS.iter().filter_map(|attack| Some((attack.number, attack.shown?)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_proves_nobody_is_refused_and_counted_whatever_connects() {
    chains::run(ATTACKS.iter().filter_map(|attack| Some((attack.number, attack.connecting?)))).await;
}

#[test]
fn every_attack_has_its_number_and_something_that_holds_it_or_that_it_waits_for() {
    let numbers: Vec<u8> = ATTACKS.iter().map(|attack| attack.number).collect();
    assert_eq!(numbers, (1..=88).collect::<Vec<u8>>());
    for attack in &ATTACKS {
        assert_ne!(attack.state(), "", "{}", attack.number);
        for test in attack.tests {
            let (file, name) = test.split_once("::").unwrap();
            let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
            let is_a_test = text.split_once(&format!("fn {name}(")).is_some_and(|(before, _)| {
                before.lines().rev().take(2).any(|line| line.starts_with("#[") && line.contains("test"))
                    || before.trim_end().ends_with("#[test]")
            });
            assert!(is_a_test, "{}: there is no test {test}", attack.number);
        }
    }
}

#[test]
fn the_document_has_the_same_attacks_in_the_same_state() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/attacks.md");
    let text = fs::read_to_string(path).unwrap();
    let mut documented = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| ")) {
        let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let Ok(number) = cells[0].parse::<u8>() else { continue };
        assert!(cells.len() == 4 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
        assert_eq!(documented.insert(number, cells[3].to_owned()), None, "{number} stands twice");
    }
    let held = ATTACKS.iter().map(|attack| (attack.number, attack.state())).collect::<BTreeMap<_, _>>();
    assert_eq!(documented, held);
}
