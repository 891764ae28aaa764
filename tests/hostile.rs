//! Hostile configuration files against the real binary: none may crash it, hang it, or take more than 200 MB.
//!
//! A separate test binary, because the memory of a child counts from its fork: that of other tests would count too.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Runs `roundsman check` on a file and gives its exit status, its output and the time it took; kills it after 60 s.
fn check(text: &[u8]) -> (Option<i32>, String, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.toml");
    fs::write(&path, text).unwrap();
    let out = fs::File::create(dir.path().join("out")).unwrap();
    let begin = SystemTime::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_roundsman"))
        .args(["check", "--config"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(out)
        .spawn()
        .unwrap();
    let status = loop {
        let elapsed = begin.elapsed().unwrap();
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if elapsed > Duration::from_secs(60) => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let output = fs::read_to_string(dir.path().join("out")).unwrap();
    (status.code(), output, begin.elapsed().unwrap())
}

/// Pools with this health table; the file is refused, because it has no listener.
fn pools_with(number: usize, health: &str) -> String {
    (0..number).map(|p| format!("[pools.p{p}]\nupstreams=[\"10.0.0.1:80\"]\n[pools.p{p}.health]\n{health}\n")).collect()
}

/// 16 checks of type http with this rule.
fn checks_with(rule: &str) -> String {
    format!("{{type=\"http\",expect={{{rule}}}}},").repeat(16)
}

/// The most memory that a child of this process has had, in bytes.
fn children_memory_max() -> i64 {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() * 1024
}

#[test]
fn a_hostile_file_neither_hangs_nor_crashes_nor_takes_memory() {
    const MIB: usize = 1 << 20;
    let fill = |unit: &str| unit.repeat(16 * MIB / unit.len());
    let cases: [(&str, &dyn Fn() -> String); 35] = [
        ("nested lists", &|| format!("a={}", "[".repeat(MIB))),
        ("nested inline tables", &|| format!("a={}", "{a=".repeat(MIB / 3))),
        ("nested headers", &|| "[".repeat(MIB)),
        ("a long dotted key", &|| format!("{}a = 1\n", "a.".repeat(MIB))),
        ("newlines", &|| fill("\n")),
        ("brackets", &|| format!("a = [{}]\n", fill("[],"))),
        ("commas", &|| format!("a = [{}", fill(","))),
        ("equals signs", &|| fill("=\n")),
        ("small keys", &|| (0..400_000).map(|i| format!("a{i}=1\n")).collect()),
        ("deep keys", &|| (0..12_000).map(|i| format!("a{i}.{}x=1\n", "a.".repeat(70))).collect()),
        ("small tables", &|| (0..600_000).map(|i| format!("[a.b{i}]\n")).collect()),
        ("small pools", &|| (0..60_000).map(|i| format!("pools.p{i}.upstreams=[\"10.0.0.1:80\"]\n")).collect()),
        ("inline tables", &|| format!("a = [{}]\n", "{a=1},".repeat(2 * MIB))),
        ("many pools of upstreams", &|| {
            let pool = |p: usize| {
                format!(
                    "pools.p{p}.upstreams = [{}]\n",
                    (1..65_000).map(|i| format!("\"1.0.0.1:{i}\",")).collect::<String>()
                )
            };
            (0..6).map(pool).collect()
        }),
        // Just small enough to be parsed: these test the estimate of the cost.
        ("most newlines", &|| format!("{}a = 1", "\n".repeat(1_999_000))),
        ("most small keys", &|| (0..233_000).map(|i| format!("a{i}=1\n")).collect()),
        ("most deep keys", &|| (0..2_750).map(|i| format!("a{i}.{}x=1\n", "a.".repeat(70))).collect()),
        ("most small tables", &|| (0..114_000).map(|i| format!("[a.b{i}]\n")).collect()),
        ("most inline tables", &|| format!("a = [{}]\n", "{a=1},".repeat(133_000))),
        ("most keys of one inline table", &|| {
            format!("a = {{{}}}\n", (0..233_000).map(|i| format!("a{i}=1,")).collect::<String>())
        }),
        ("most upstreams", &|| format!("pools.a.upstreams = [{}]", "\"10.0.0.1:80\",".repeat(65_535))),
        ("most lists", &|| format!("a = [{}]\n", "[1],".repeat(181_000))),
        ("most numbers", &|| format!("a = [{}]\n", "1,".repeat(399_000))),
        ("one comment", &|| format!("a = 1 # {}", "x".repeat(15 * MIB))),
        ("one string", &|| format!("pools.a.upstreams = [\"{}\"]", "x".repeat(15 * MIB))),
        ("one key", &|| format!("{} = 1", "x".repeat(15 * MIB))),
        ("one line of mistakes", &|| format!("routes = [{}]", "1,".repeat(300_000))),
        ("upstreams", &|| {
            format!("pools.a.upstreams = [{}]", (0..900_000).map(|i| format!("\"10.0.0.1:{i}\",")).collect::<String>())
        }),
        ("upstream tables", &|| {
            format!("pools.a.upstreams = [{}]", "{address=\"10.0.0.1:80\",weight=1},".repeat(65_535))
        }),
        ("lists of checks", &|| pools_with(1_000, &format!("checks=[{}]", "{},".repeat(16)))),
        ("json rules", &|| pools_with(250, &format!("checks=[{}]", checks_with("json=[{},{},{},{}]")))),
        ("json paths", &|| {
            let path = |i: usize| format!("{{path=\"$.x{i}{}\",exists=true}},", ".a".repeat(2_000));
            pools_with(1, &format!("type=\"http\"\nexpect.json=[{}]", (0..32).map(path).collect::<String>()))
                + &(0..100).map(|p| format!("pools.q{p}.upstreams=[\"10.0.0.1:80\"]\npools.q{p}.health.type=\"http\"\npools.q{p}.health.expect.json=[{}]\n", (0..32).map(|i| path(p * 32 + i)).collect::<String>())).collect::<String>()
        }),
        ("patterns", &|| {
            let field = |i: usize| format!("a{i}={{matches=\"x{i}\\\\w{{4}}\"}},");
            (0..1_000)
                .map(|p| format!("pools.q{p}.upstreams=[\"10.0.0.1:80\"]\npools.q{p}.health.type=\"http\"\npools.q{p}.health.expect.header={{{}}}\n", (0..32).map(|i| field(p * 32 + i)).collect::<String>()))
                .collect()
        }),
        ("bundles of certificates", &|| {
            let file = std::env::current_dir().unwrap().join("tests/config/tls/ca.pem");
            pools_with(500, &format!("checks=[{}]", format!("{{type=\"tls\",tls={{ca_file={file:?}}}}},").repeat(16)))
        }),
        ("variables", &|| format!("pools.a.upstreams = [{}]", "\"${A:-xxxxxxxxxxxxxxxxxxxxxxx}\",".repeat(65_535))),
    ];
    for (name, text) in cases {
        let text = text();
        let text = &text.as_bytes()[..text.len().min(16 * MIB)];
        let (code, output, elapsed) = check(text);
        let begin: String = output.chars().take(300).collect();
        println!(
            "{name}: {elapsed:?}, {} MB so far: {}",
            children_memory_max() / 1_000_000,
            begin.lines().next().unwrap_or("")
        );
        assert_eq!(code, Some(78), "{name}: {begin}");
        assert!(output.len() < 200_000, "{name}: {} bytes of output", output.len());
        assert!(children_memory_max() < 200_000_000, "{name}: {} bytes", children_memory_max());
    }
}
