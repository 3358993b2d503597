//! Clients that go away in the middle of their streams leave nothing behind: no slot, no place in
//! the queue, no descriptor, no memory.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::tools::{self, Process, enginewright, free_address, wait_for};

const LIMIT: Duration = Duration::from_mins(1);
/// Clients at once.
const CLIENTS: usize = 8;

/// `make soak` asks for 10,000.
fn wanted() -> usize {
    std::env::var("ENGINEWRIGHT_DISCONNECTS").map_or(200, |text| text.parse().unwrap())
}

/// Sends a request and reads `events` events of its answer, then closes the connection.
fn leave_after(address: SocketAddr, events: usize, number: usize) {
    let body = format!(
        "{{\"model\":\"smollm2\",\"stream\":true,\"max_tokens\":400,\"messages\":\
         [{{\"role\":\"user\",\"content\":\"Tell story number {number}.\"}}]}}"
    );
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    write!(
        connection,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    if events == 0 {
        return;
    }
    let lines = BufReader::new(connection).lines();
    let seen = lines
        .map(|line| line.expect("the stream lives as long as its client"))
        .filter(|line| line.starts_with("data:"))
        .take(events);
    assert_eq!(seen.count(), events, "the answer ended early");
}

/// A gauge of `/metrics`.
fn gauge(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| line.starts_with(name) && !line.starts_with('#'));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .unwrap_or_else(|| panic!("{name} in {metrics}"))
        .parse()
        .unwrap()
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    std::io::read_to_string(connection).unwrap()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.unwrap().trim().trim_end_matches(" kB");
    value.parse().unwrap()
}

/// Waits until nothing runs any more.
fn quiet(address: SocketAddr) {
    wait_for("an idle server", LIMIT, || {
        let metrics = get(address, "/metrics");
        let busy = gauge(&metrics, "enginewright_slots_busy{");
        let waiting = gauge(&metrics, "enginewright_waiting{");
        (busy + waiting == 0.0).then_some(())
    });
}

fn rounds(address: SocketAddr, count: usize) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for number in (client..count).step_by(CLIENTS) {
                    leave_after(address, number % 4, number);
                }
            });
        }
    });
    quiet(address);
}

#[test]
fn clients_that_leave_in_mid_stream_leave_nothing_behind() {
    let address = free_address();
    let mut command = enginewright(["serve", "--served-name", "smollm2", "--model"]);
    command.arg(tools::model());
    command.args(["--listen", &address.to_string()]);
    command.args(["--context", "512", "--slots", "4", "--queue", "64"]);
    let mut process = Process::start(command);
    process.wait_for_output("ready", LIMIT);
    // Caches fill and the allocator settles during the first ones.
    rounds(address, wanted() / 4);
    let (open, resident) = (descriptors(process.pid()), resident_kib(process.pid()));
    rounds(address, wanted());
    let (after, grown) = (descriptors(process.pid()), resident_kib(process.pid()));
    eprintln!(
        "{} disconnects: {open} -> {after} descriptors, {resident} -> {grown} KiB resident",
        wanted()
    );
    assert!(after <= open + 2, "{open} -> {after} descriptors");
    assert!(
        grown < resident + 8 * 1024,
        "{resident} -> {grown} KiB resident"
    );
    leave_after(address, 8, 0);
    assert!(process.is_running(), "{}", process.output());
}
