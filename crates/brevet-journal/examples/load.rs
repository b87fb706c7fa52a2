use brevet_core::revision::Revision;
use brevet_core::time::Timestamp;
use brevet_journal::checkpoint::*;
use brevet_journal::sqlite::*;
use brevet_journal::*;
use std::sync::Arc;
struct S;
impl CheckpointSigner for S {
    fn key_id(&self) -> &str {
        "k"
    }
    fn sign(&self, _: &[u8]) -> Result<Signature, SigningFailed> {
        Ok([0; 64])
    }
}
fn cpu(names: &[&str]) -> u64 {
    let mut sum = 0;
    for t in std::fs::read_dir("/proc/self/task").unwrap() {
        let p = t.unwrap().path();
        let n = std::fs::read_to_string(p.join("comm")).unwrap();
        if names.is_empty() || names.contains(&n.trim()) {
            let s = std::fs::read_to_string(p.join("schedstat")).unwrap();
            sum += s.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    sum
}
fn spin(rounds: u32) {
    let b = [7u8; 4096];
    for _ in 0..rounds {
        std::hint::black_box(ring::digest::digest(&ring::digest::SHA256, &b));
    }
}
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let inflight: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let rounds: u32 = std::env::args().nth(3).unwrap().parse().unwrap();
    let body = 1500;
    let per = 60_000 / inflight;
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    // floors
    let b = vec![7u8; body];
    let c = cpu(&[]);
    for _ in 0..20000 {
        std::hint::black_box(ring::digest::digest(&ring::digest::SHA256, &b));
    }
    let sha = (cpu(&[]) - c) as f64 / 20000e3;
    let f = std::fs::File::create(format!("{dir}/floor")).unwrap();
    use std::os::unix::fs::FileExt;
    f.write_all_at(&vec![0; body * 4000], 0).unwrap();
    f.sync_all().unwrap();
    let c = cpu(&[]);
    let w = std::time::Instant::now();
    for i in 0..2000u64 {
        f.write_all_at(&b, i * body as u64).unwrap();
        f.sync_data().unwrap();
    }
    let fs = (cpu(&[]) - c) as f64 / 2000e3;
    println!(
        "sha {sha:.2}us write+fdatasync cpu {fs:.1}us wall {:.1}us floor {:.2}us",
        w.elapsed().as_secs_f64() * 1e6 / 2000.0,
        sha + fs / 16.0
    );
    let c = cpu(&[]);
    for _ in 0..2000 {
        spin(rounds);
    }
    println!("work {:.1}us", (cpu(&[]) - c) as f64 / 2000e3);
    // base: same loop without the journal
    let base = {
        let c = cpu(&[]);
        rt.block_on(async {
            let mut js = vec![];
            for _ in 0..inflight {
                js.push(tokio::spawn(async move {
                    for _ in 0..per {
                        spin(rounds);
                        std::hint::black_box(vec![7u8; body]);
                        tokio::task::yield_now().await;
                    }
                }))
            }
            for j in js {
                j.await.unwrap()
            }
        });
        (cpu(&[]) - c) as f64
    };
    for window in std::env::args().skip(4).map(|w| w.parse::<u32>().unwrap()) {
        let d = format!("{dir}/s{window}");
        let _ = std::fs::remove_dir_all(&d);
        std::fs::create_dir_all(&d).unwrap();
        let mut o = Options::new(&d);
        o.commit_window_micros_max = window;
        let j: Arc<dyn Journal> = Arc::new(
            Sqlite::open(o)
                .unwrap()
                .replay(|_| Ok::<_, std::io::Error>(()))
                .unwrap()
                .start(Revision::ZERO, Arc::new(S), Arc::new(|| Timestamp::EPOCH))
                .unwrap(),
        );
        let total = cpu(&[]);
        let own = cpu(&["journal", "journal-mark"]);
        let m = cpu(&["journal-mark"]);
        let w = std::time::Instant::now();
        let io0 = std::fs::read_to_string("/proc/self/io").unwrap();
        let lat = rt.block_on(async {
            let mut js = vec![];
            for _ in 0..inflight {
                let j = j.clone();
                js.push(tokio::spawn(async move {
                    let mut l = vec![];
                    for _ in 0..per {
                        spin(rounds);
                        let t = std::time::Instant::now();
                        j.append(Entry { kind: Kind::Note, grows: false, body: vec![7; body] }, &mut |_| ())
                            .unwrap()
                            .durable()
                            .await
                            .unwrap();
                        l.push(t.elapsed().as_micros() as u64);
                    }
                    l
                }));
            }
            let mut l = vec![];
            for j in js {
                l.extend(j.await.unwrap());
            }
            l.sort_unstable();
            l
        });
        let n = (per * inflight) as f64;
        let _ = io0;
        let vol = std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .filter(|l| l.starts_with("voluntary"))
            .map(str::to_owned)
            .collect::<String>();
        println!(
            "window {window}: all {:.2}us/rec threads {:.2} (mark {:.2}) wall {:.0}/s lat p50 {} p99 {} commits {} {vol}",
            (cpu(&[]) as f64 - total as f64 - base) / n / 1e3,
            (cpu(&["journal", "journal-mark"]) - own) as f64 / n / 1e3,
            (cpu(&["journal-mark"]) - m) as f64 / n / 1e3,
            n / w.elapsed().as_secs_f64(),
            lat[lat.len() / 2],
            lat[lat.len() * 99 / 100],
            0
        );
    }
}
