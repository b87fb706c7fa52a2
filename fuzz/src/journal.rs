//! Records of the journal, and the state that they fold to.

use brevet_core::record::{decode, encode};
use brevet_core::revision::Revision;
use brevet_core::state::State;

/// Records, one a line.
pub fn record(bytes: &[u8]) {
    let mut state = State::default();
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let Ok(record) = decode(line) else { continue };
        let written = encode(&record.envelope, &record.fact, record.evidence.as_ref()).unwrap();
        let again = decode(&written).expect("what was written is read");
        assert_eq!((&record.envelope, &record.fact), (&again.envelope, &again.fact), "a record changes");
        assert_eq!(
            record.evidence.map(serde_json::value::RawValue::get),
            again.evidence.map(serde_json::value::RawValue::get)
        );
        let twice = encode(&again.envelope, &again.fact, again.evidence.as_ref()).unwrap();
        assert_eq!(written, twice, "a record has two spellings");
        state.apply(&record.envelope, &record.fact, Revision(number));
    }
    let snapshot = state.to_snapshot().unwrap();
    let restored = State::from_snapshot(&snapshot).expect("a snapshot").expect("one of this version");
    assert_eq!(snapshot, restored.to_snapshot().unwrap(), "a snapshot changes the state");
}
