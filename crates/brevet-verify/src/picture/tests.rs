use brevet_core::bookmark::Statement;
use brevet_core::merkle::Tree;
use brevet_core::name::KeyId;
use brevet_core::revision::Incarnation;

use super::*;
use crate::tests::{AUDIENCE, HOLDER, ISSUED, Issuer, at};

const ROOT: &str = "0000000000000000000000000g";
const MIDDLE: &str = "0000000000000000000000000h";
const LEAF: &str = "0000000000000000000000000j";
const LEASE: &str = "0000000000000000000000000k";
const D: Duration = Duration::from_secs(2);

const fn boot(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn nonce(number: u8) -> Nonce {
    Nonce::new(&[number; 16]).unwrap()
}

fn task(text: &str) -> TaskId {
    text.parse().unwrap()
}

fn endings(revision: u64, ended: Ended, until: Timestamp) -> Endings {
    let reason = ReasonCode::of("done");
    Endings { revision: Revision(revision), endings: vec![ToldEnding { ended, reason, until }], more: false }
}

/// A broker that signs bookmarks, and the picture of who watches it.
struct Watched {
    broker: Issuer,
    picture: Picture,
}

impl Watched {
    fn new() -> Self {
        let broker = Issuer::new();
        let picture = Picture::new(broker.keys());
        Self { broker, picture }
    }

    /// The bookmark of one nonce among three others.
    fn bookmark(&self, number: u8, revision: u64, judge_time: Timestamp) -> Bookmark {
        let together = [nonce(200), nonce(201), nonce(number), nonce(202)];
        let tree = Tree::over(together.iter().map(Nonce::as_bytes)).unwrap();
        let cursor = Cursor { incarnation: Incarnation(7), revision: Revision(revision) };
        let chain = [u8::try_from(revision).unwrap(); 32];
        let statement = Statement { cursor, chain, judge_time, root: tree.root() };
        Bookmark {
            cursor,
            chain,
            judge_time,
            nonce: nonce(number),
            nonce_index: 2,
            nonce_count: 4,
            nonce_path: tree.path(2),
            key_id: KeyId::parse("k").unwrap(),
            signature: self.broker.sign(&statement.to_bytes()),
        }
    }

    /// Asks at a time since boot, and has the answer at once.
    fn progress(&mut self, number: u8, asked: Duration, revision: u64, judge_time: Timestamp) {
        self.picture.asking(nonce(number), asked);
        let bookmark = self.bookmark(number, revision, judge_time);
        self.picture.bookmark(&bookmark).unwrap();
    }

    fn token(&self, path: &[&str]) -> Verified {
        let token = self.broker.token_of(None, path, LEASE);
        self.broker.verifier(AUDIENCE).verify(&token, &HOLDER, at(0)).unwrap()
    }

    fn standing(&self, path: &[&str], since_boot: Duration, wall: Timestamp) -> Standing {
        self.picture.judge(&self.token(path), D, since_boot, wall)
    }
}

#[test]
fn t3_nothing_lives_without_progress_and_it_counts_from_when_the_nonce_was_sent() {
    let mut watched = Watched::new();
    assert_eq!(watched.standing(&[ROOT], boot(0), at(1)), Standing::Stale, "nothing was told yet");
    watched.progress(1, boot(10_000), 5, at(1));
    assert_eq!(watched.standing(&[ROOT], boot(11_999), at(1)), Standing::Live);
    assert_eq!(watched.standing(&[ROOT], boot(12_000), at(1)), Standing::Stale);

    // A proxy holds the answer to the second nonce back for 5 s: it refreshes nothing but what its nonce is worth.
    watched.picture.asking(nonce(2), boot(11_000));
    let late = watched.bookmark(2, 6, at(2));
    watched.picture.bookmark(&late).unwrap();
    assert_eq!(watched.picture.age(boot(16_000)), Some(boot(5_000)));
    assert_eq!(watched.standing(&[ROOT], boot(12_999), at(1)), Standing::Live);
    assert_eq!(watched.standing(&[ROOT], boot(16_000), at(1)), Standing::Stale);

    // Nor does it when it is played again, or answers what was never asked.
    assert_eq!(watched.picture.bookmark(&late), Err(BookmarkError::Nonce));
    let unasked = watched.bookmark(3, 7, at(3));
    assert_eq!(watched.picture.bookmark(&unasked), Err(BookmarkError::Nonce));
    assert_eq!(watched.standing(&[ROOT], boot(16_000), at(1)), Standing::Stale);
    watched.progress(4, boot(16_000), 6, at(7));
    assert_eq!(watched.standing(&[ROOT], boot(16_000), at(1)), Standing::Live);
}

#[test]
fn t2_a_token_below_an_ended_task_or_of_an_ended_lease_is_dead_at_once_and_stays_so() {
    let mut watched = Watched::new();
    watched.progress(1, boot(0), 5, at(0));
    let path = [ROOT, MIDDLE, LEAF];
    assert_eq!(watched.standing(&path, boot(1), at(1)), Standing::Live);

    // Ids are told apart by their trees: the same node below another root is another task.
    let other: TaskId = format!("{LEAF}-{MIDDLE}").parse().unwrap();
    watched.picture.apply(&endings(6, Ended::Task(other), at(300)));
    assert_eq!(watched.standing(&path, boot(1), at(1)), Standing::Live);

    let middle: TaskId = format!("{ROOT}-{MIDDLE}").parse().unwrap();
    watched.picture.apply(&endings(7, Ended::Task(middle), at(300)));
    let death = Standing::Dead(Death::Task(middle, ReasonCode::of("done")));
    assert_eq!(watched.standing(&path, boot(1), at(1)), death);
    assert_eq!(watched.standing(&path, boot(60_000), at(1)), death, "what is dead is not merely stale");
    assert_eq!(watched.standing(&[ROOT], boot(1), at(1)), Standing::Live, "above it, life goes on");

    let lease = LeaseId { task: task(ROOT), key: LEASE.parse().unwrap() };
    watched.picture.apply(&endings(8, Ended::Lease(lease), at(300)));
    assert_eq!(
        watched.standing(&[ROOT], boot(1), at(1)),
        Standing::Dead(Death::Lease(ReasonCode::of("done")))
    );
    watched.picture.apply(&endings(8, Ended::Lease(lease), at(200)));
    watched.progress(2, boot(1), 8, at(250));
    assert_eq!(watched.picture.len(), 3, "what is told again is forgotten no earlier");
    watched.progress(3, boot(2), 9, at(300));
    assert!(watched.picture.is_empty(), "all that these ended has ended by itself");
    assert_eq!(watched.standing(&[ROOT], boot(2), at(1)), Standing::Dead(Death::Expired));
}

#[test]
fn c7_a_slow_clock_accepts_nothing_past_its_end_and_a_fast_one_forgets_nothing() {
    let mut watched = Watched::new();
    // The token ends at 300 s. The clock here stands still at 1 s.
    watched.progress(1, boot(5_000), 5, at(299));
    assert_eq!(watched.standing(&[ROOT], boot(5_999), at(1)), Standing::Live);
    assert_eq!(watched.standing(&[ROOT], boot(6_000), at(1)), Standing::Dead(Death::Expired));
    assert_eq!(watched.picture.time(boot(6_000), at(1)), at(300));
    // One that is ahead counts as well, and what it says is not kept.
    assert_eq!(watched.standing(&[ROOT], boot(5_000), at(300)), Standing::Dead(Death::Expired));
    assert_eq!(watched.standing(&[ROOT], boot(5_000), at(1)), Standing::Live);
    watched.picture.apply(&endings(6, Ended::Task(task(ROOT)), at(300)));
    assert_eq!(watched.standing(&[ROOT], boot(5_000), at(400)), Standing::Dead(Death::Expired));
    watched.progress(2, boot(5_001), 6, at(299));
    assert!(matches!(watched.standing(&[ROOT], boot(5_001), at(1)), Standing::Dead(Death::Task(..))));
    // Before the first bookmark there is the local clock alone.
    let fresh = Watched::new();
    assert_eq!(fresh.picture.time(boot(9_000), at(4)), at(4));
}

#[test]
fn w6_a_bookmark_counts_only_if_the_broker_signed_just_that() {
    let mut watched = Watched::new();
    watched.picture.asking(nonce(1), boot(0));
    let good = watched.bookmark(1, 5, at(1));
    let mut refused = |change: &dyn Fn(&mut Bookmark)| {
        let mut bookmark = good.clone();
        change(&mut bookmark);
        let refused = watched.picture.bookmark(&bookmark).unwrap_err();
        assert!(watched.picture.cursor().is_none());
        refused
    };
    assert_eq!(refused(&|it| it.cursor.revision = Revision(6)), BookmarkError::Signature);
    assert_eq!(refused(&|it| it.cursor.incarnation = Incarnation(8)), BookmarkError::Signature);
    assert_eq!(refused(&|it| it.chain[0] ^= 1), BookmarkError::Signature);
    assert_eq!(refused(&|it| it.judge_time = at(2)), BookmarkError::Signature);
    assert_eq!(refused(&|it| it.nonce_path[1][0] ^= 1), BookmarkError::Signature);
    assert_eq!(refused(&|it| it.nonce_index = 3), BookmarkError::Signature);
    assert_eq!(refused(&|it| it.signature[63] ^= 1), BookmarkError::Signature);
    assert_eq!(
        refused(&|it| {
            it.nonce_path.pop();
        }),
        BookmarkError::Path
    );
    assert_eq!(refused(&|it| it.nonce_count = 0), BookmarkError::Path);
    assert_eq!(refused(&|it| it.key_id = KeyId::parse("other").unwrap()), BookmarkError::Key);
    assert_eq!(refused(&|it| it.nonce = nonce(2)), BookmarkError::Nonce);
    let forged = Watched::new().bookmark(1, 5, at(1));
    assert_eq!(refused(&|it| it.signature = forged.signature), BookmarkError::Signature);

    watched.picture.bookmark(&good).unwrap();
    assert_eq!(watched.picture.witness(), Some(Witness { cursor: good.cursor, chain: [5; 32] }));
}

#[test]
fn w6_neither_revision_nor_time_nor_chain_goes_back() {
    type Change<'a> = &'a dyn Fn(&mut Bookmark);
    let mut watched = Watched::new();
    watched.progress(1, boot(0), 5, at(10));
    watched.picture.asking(nonce(2), boot(1));
    let signed = |watched: &Watched, change: Change<'_>| {
        let mut bookmark = watched.bookmark(2, 5, at(10));
        change(&mut bookmark);
        let statement = bookmark.statement().unwrap();
        Bookmark { signature: watched.broker.sign(&statement.to_bytes()), ..bookmark }
    };
    let cases: [(Change<'_>, BookmarkError); 4] = [
        (&|it| it.cursor.incarnation = Incarnation(8), BookmarkError::Incarnation),
        (&|it| it.cursor.revision = Revision(4), BookmarkError::Behind),
        (&|it| it.chain = [6; 32], BookmarkError::Forked),
        (&|it| it.judge_time = Timestamp::from_millis(ISSUED * 1_000 + 9_999), BookmarkError::Time),
    ];
    for (change, error) in cases {
        let bookmark = signed(&watched, change);
        assert_eq!(watched.picture.bookmark(&bookmark), Err(error));
    }
    assert_eq!(watched.picture.age(boot(3)), Some(boot(3)), "what does not count refreshes nothing");
    let good = signed(&watched, &|_| ());
    watched.picture.bookmark(&good).unwrap();
    assert_eq!(watched.picture.age(boot(3)), Some(boot(2)));
}

#[test]
fn w5_the_cursor_is_behind_everything_that_was_told() {
    let mut watched = Watched::new();
    watched.picture.apply(&endings(4, Ended::Task(task(ROOT)), at(300)));
    assert_eq!(watched.picture.cursor(), None, "nobody has said of which journal that is");
    watched.progress(1, boot(0), 5, at(1));
    let at_revision = |watched: &Watched| watched.picture.cursor().unwrap().revision.0;
    assert_eq!(at_revision(&watched), 5);
    watched.picture.apply(&endings(9, Ended::Task(task(LEAF)), at(300)));
    assert_eq!(at_revision(&watched), 9);
    // A bookmark may be behind what was told since it was signed.
    watched.progress(2, boot(1), 8, at(1));
    assert_eq!(at_revision(&watched), 9);
}

#[test]
fn w3_w5_a_part_of_a_commit_counts_at_once_and_the_cursor_waits_for_the_last() {
    let mut watched = Watched::new();
    watched.progress(1, boot(0), 5, at(1));
    let part = |name, more| Endings { more, ..endings(9, Ended::Task(task(name)), at(300)) };
    watched.picture.apply(&part(LEAF, true));
    assert_eq!((watched.picture.len(), watched.picture.cursor().unwrap().revision), (1, Revision(8)));
    watched.picture.apply(&part(MIDDLE, false));
    assert_eq!((watched.picture.len(), watched.picture.cursor().unwrap().revision), (2, Revision(9)));
}

#[test]
fn nonces_that_nobody_answers_are_given_up() {
    let mut watched = Watched::new();
    for number in 0..=NONCES_MAX {
        watched.picture.asking(nonce(u8::try_from(number).unwrap()), boot(0));
    }
    assert_eq!(watched.picture.asked.len(), NONCES_MAX);
    let first = watched.bookmark(0, 5, at(1));
    assert_eq!(watched.picture.bookmark(&first), Err(BookmarkError::Nonce));
    let last = watched.bookmark(64, 5, at(1));
    watched.picture.bookmark(&last).unwrap();
    assert!(watched.picture.asked.is_empty());
}
