//! The presets for widespread systems, against answers that their documentation gives, on the port that the preset
//! asks: one that passes and those that must not. `servers::presets` tries the same on real servers, where Debian has
//! them.

use roundsman::model::Code;

use super::{Port, State, hold, sized};

const OK: &[(Code, &[&str])] = &[(Code::L7Ok, &[])];

/// One answer of a system over HTTP, and what the check must say of it.
struct Http {
    /// The keys of the check.
    health: &'static str,
    /// The port of the check.
    port: u16,
    /// The path that is asked for, without its query.
    path: &'static str,
    status: &'static str,
    body: &'static str,
    verdict: &'static [(Code, &'static [&'static str])],
}

impl Http {
    fn state(&self) -> State {
        let kind = if self.body.starts_with(['{', '"']) { "application/json" } else { "text/plain" };
        let answer = sized(&format!("HTTP/1.1 {}\nContent-Type: {kind}", self.status), self.body);
        let otherwise = sized("HTTP/1.1 404 Not Found\nContent-Type: text/plain", "not the path of the preset");
        let port = match self.health.contains("kubernetes") {
            true => Port::Https { path: self.path, answer, otherwise },
            false => Port::Http { path: self.path, answer, otherwise },
        };
        State { name: self.status, ports: vec![(self.port, port)], verdicts: self.verdict }
    }
}

macro_rules! answers {
    ($($health:literal $port:literal $path:literal: { $($status:literal $body:literal => $verdict:expr;)* })*) => {
        &[$($(Http { health: $health, port: $port, path: $path, status: $status, body: $body, verdict: $verdict },)*)*]
    };
}

#[rustfmt::skip]
const HTTP: &[Http] = answers! {
    "preset = \"spring-boot\"\n" 8080 "/actuator/health": {
        "200 OK" r#"{"status":"UP","groups":["liveness","readiness"]}"# => OK;
        "503 Service Unavailable" r#"{"status":"DOWN","components":{"db":{"status":"DOWN","details":{"error":"no connection"}},"ping":{"status":"UP"}}}"#
            => &[(Code::L7Sts, &["status 503, expected 200", "$.status", "DOWN"])];
        "503 Service Unavailable" r#"{"status":"OUT_OF_SERVICE"}"# => &[(Code::L7Sts, &["OUT_OF_SERVICE"])];
    }
    "preset = \"vault\"\n" 8200 "/v1/sys/health": {
        "200 OK" r#"{"initialized":true,"sealed":false,"standby":true,"version":"1.15.2"}"# => OK;
        "503 Service Unavailable" r#"{"initialized":true,"sealed":true,"standby":true,"version":"1.15.2"}"#
            => &[(Code::L7Sts, &["status 503, expected 200", "$.sealed"])];
        "501 Not Implemented" r#"{"initialized":false,"sealed":true,"standby":true}"# => &[(Code::L7Sts, &["status 501"])];
        "472 unknown" r#"{"initialized":true,"sealed":false,"standby":true}"# => &[(Code::L7Sts, &["status 472"])];
    }
    "preset = \"elasticsearch\"\n" 9200 "/_cluster/health": {
        "200 OK" r#"{"cluster_name":"es","status":"green","timed_out":false,"number_of_nodes":3}"# => OK;
        "200 OK" r#"{"cluster_name":"es","status":"yellow","timed_out":false,"number_of_nodes":1}"# => OK;
        "200 OK" r#"{"cluster_name":"es","status":"red","timed_out":false,"number_of_nodes":3}"# => &[(Code::L7Rsp, &["$.status", "red"])];
        "503 Service Unavailable" r#"{"error":{"type":"master_not_discovered_exception","reason":null},"status":503}"#
            => &[(Code::L7Sts, &["status 503"])];
    }
    "preset = \"minio\"\n" 9000 "/minio/health/live": {
        "200 OK" "" => OK;
        "503 Service Unavailable" "" => &[(Code::L7Sts, &["status 503"])];
    }
    "preset = \"patroni-primary\"\n" 8008 "/primary": {
        "200 OK" r#"{"state":"running","role":"primary","timeline":2}"# => OK;
        "503 Service Unavailable" r#"{"state":"running","role":"replica","timeline":2}"# => &[(Code::L7Sts, &["status 503, expected 200"])];
    }
    "preset = \"patroni-replica\"\n" 8008 "/replica": {
        "200 OK" r#"{"state":"running","role":"replica","timeline":2}"# => OK;
        "503 Service Unavailable" r#"{"state":"running","role":"primary","timeline":2}"# => &[(Code::L7Sts, &["status 503, expected 200"])];
    }
    "preset = \"galera\"\n" 9200 "/": {
        "200 OK" "Percona XtraDB Cluster Node is synced.\r\n" => OK;
        "503 Service Unavailable" "Percona XtraDB Cluster Node is not synced.\r\n" => &[(Code::L7Sts, &["status 503", "not synced"])];
        "200 OK" "Percona XtraDB Cluster Node is not synced.\r\n" => &[(Code::L7Rsp, &["not synced"])];
    }
    "preset = \"consul\"\n" 8500 "/v1/status/leader": {
        "200 OK" "\"10.1.10.12:8300\"" => OK;
        "200 OK" "\"\"" => &[(Code::L7Rsp, &["$"])];
        "500 Internal Server Error" "No known Consul servers" => &[(Code::L7Sts, &["status 500", "No known Consul servers"])];
    }
    "preset = \"etcd\"\n" 2379 "/health": {
        "200 OK" r#"{"health":"true","reason":""}"# => OK;
        "503 Service Unavailable" r#"{"health":"false","reason":"RAFT NO LEADER"}"# => &[(Code::L7Sts, &["status 503", "$.health"])];
        "200 OK" r#"{"health":"false"}"# => &[(Code::L7Rsp, &["$.health", "false"])];
    }
    "preset = \"keycloak\"\n" 9000 "/health/ready": {
        "200 OK" r#"{"status":"UP","checks":[{"name":"Keycloak database connections async health check","status":"UP"}]}"# => OK;
        "503 Service Unavailable" r#"{"status":"DOWN","checks":[{"name":"Keycloak database connections async health check","status":"DOWN"}]}"#
            => &[(Code::L7Sts, &["status 503", "DOWN"])];
    }
    "preset = \"kubernetes\"\ntls = { verify = false }\n" 6443 "/readyz": {
        "200 OK" "[+]ping ok\n[+]etcd ok\nreadyz check passed\n" => OK;
        "500 Internal Server Error" "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n"
            => &[(Code::L7Sts, &["status 500, expected 200", "[-]etcd failed: reason withheld"])];
    }
    "preset = \"rails\"\n" 3000 "/up": {
        "200 OK" "<!DOCTYPE html><html><body style=\"background-color: green\"></body></html>" => OK;
        "500 Internal Server Error" "<!DOCTYPE html><html><body style=\"background-color: red\"></body></html>" => &[(Code::L7Sts, &["status 500"])];
        "403 Forbidden" "Blocked hosts: 10.0.0.1:3000" => &[(Code::L7Sts, &["status 403", "Blocked hosts"])];
    }
    "preset = \"aspnet\"\n" 5000 "/healthz": {
        "200 OK" "Healthy" => OK;
        "200 OK" "Degraded" => OK;
        "503 Service Unavailable" "Unhealthy" => &[(Code::L7Sts, &["status 503", "Unhealthy"])];
        "200 OK" "Unhealthy" => &[(Code::L7Rsp, &["Unhealthy"])];
    }
    "preset = \"grafana\"\n" 3000 "/api/health": {
        "200 OK" "{\n  \"commit\": \"1e84fede543acc892d2a2515187e545eb047f237\",\n  \"database\": \"ok\",\n  \"version\": \"10.2.2\"\n}" => OK;
        "503 Service Unavailable" "{\n  \"database\": \"failing\",\n  \"version\": \"10.2.2\"\n}" => &[(Code::L7Sts, &["status 503", "$.database", "failing"])];
    }
    "preset = \"prometheus\"\n" 9090 "/-/ready": {
        "200 OK" "Prometheus Server is Ready.\n" => OK;
        "503 Service Unavailable" "Service Unavailable" => &[(Code::L7Sts, &["status 503"])];
    }
};

#[tokio::test]
async fn http_presets_pass_and_fail_on_the_documented_answers() {
    for case in HTTP {
        hold(&[case.health], case.port, vec![case.state()]).await;
    }
}

/// What a server of a text protocol says, all at once, and what the check must say of it.
#[tokio::test]
async fn tcp_presets_pass_and_fail_on_the_documented_answers() {
    const MYSQL_GREETING: &[u8] = b"\x4a\x00\x00\x00\x0a8.0.35\x00\x08\x00\x00\x00abcdefgh\x00\xff\xff\xff\x02\x00";
    let greeted = |then: &[u8]| [MYSQL_GREETING, then].concat();
    let cases: [(&str, u16, Vec<u8>, &[(Code, &[&str])]); 25] = [
        ("redis", 6379, b"+PONG\r\n".to_vec(), OK),
        (
            "redis",
            6379,
            b"-LOADING Redis is loading the dataset in memory\r\n".to_vec(),
            &[(Code::L7Rsp, &["-LOADING"])],
        ),
        ("redis", 6379, b"-NOAUTH Authentication required.\r\n".to_vec(), &[(Code::L7Rsp, &["-NOAUTH"])]),
        ("redis", 6379, b"-DENIED Redis is running in protected mode".to_vec(), &[(Code::L7Rsp, &["-DENIED"])]),
        ("postgresql", 5432, b"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00".to_vec(), OK),
        ("postgresql", 5432, b"E\0\0\0\x60SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry\0\0".to_vec(), OK),
        (
            "postgresql",
            5432,
            b"E\0\0\0\x60SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0".to_vec(),
            &[(Code::L7Rsp, &["C57P03"])],
        ),
        (
            "postgresql",
            5432,
            b"E\0\0\0\x60SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0".to_vec(),
            &[(Code::L7Rsp, &["C53300"])],
        ),
        ("mysql", 3306, greeted(b"\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00"), OK),
        ("mysql", 3306, greeted(b"\x48\x00\x00\x02\xff\x15\x04#28000Access denied for user"), OK),
        ("mysql", 3306, greeted(b"\x2c\x00\x00\x02\xfecaching_sha2_password\x00"), OK),
        ("mysql", 3306, b"\x17\x00\x00\x00\xff\x10\x04Too many connections".to_vec(), &[(Code::L7Rsp, &["Too many"])]),
        (
            "mysql",
            3306,
            b"\x6a\x00\x00\x00\xff\x69\x04Host '10.0.0.9' is blocked because of many connection errors".to_vec(),
            &[(Code::L7Rsp, &["is blocked"])],
        ),
        ("smtp", 25, b"220 mx.example.org ESMTP Postfix\r\n250-mx.example.org\r\n250 HELP\r\n221 bye\r\n".to_vec(), OK),
        ("smtp", 25, b"220-mx.example.org\r\n220 ESMTP\r\n250 mx.example.org\r\n221 bye\r\n".to_vec(), OK),
        ("smtp", 25, b"421 Service not available\r\n".to_vec(), &[(Code::L7Rsp, &["421"])]),
        ("smtp", 25, b"554 no mail from here\r\n".to_vec(), &[(Code::L7Rsp, &["554"])]),
        ("amqp", 5672, b"\x01\x00\x00\x00\x00\x01\xec\x00\x0a\x00\x0a\x00\x09".to_vec(), OK),
        ("amqp", 5672, b"AMQP\x03\x01\x00\x00".to_vec(), &[(Code::L7Rsp, &["AMQP"])]),
        ("mqtt", 1883, b"\x20\x02\x00\x05".to_vec(), OK),
        ("memcached", 11211, b"VERSION 1.6.18\r\n".to_vec(), OK),
        ("ldap", 389, b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00".to_vec(), OK),
        (
            "ldap",
            389,
            b"\x30\x84\x00\x00\x00\x10\x02\x01\x01\x61\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00".to_vec(),
            OK,
        ),
        ("zookeeper", 2181, b"Zookeeper version: 3.8.0\nLatency min/avg/max: 0/0.0/0\nMode: follower\n".to_vec(), OK),
        (
            "zookeeper",
            2181,
            b"This ZooKeeper instance is not currently serving requests\n".to_vec(),
            &[(Code::L7Rsp, &["not currently serving requests"])],
        ),
    ];
    for (preset, port, says, verdicts) in cases {
        let ports = vec![(port, Port::Says(says))];
        hold(&[&format!("preset = \"{preset}\"\n")], port, vec![State { name: preset, ports, verdicts }]).await;
    }
}
