//! 1,000 mutations of a real model's header: lying counts, offsets and types, flipped bytes,
//! truncations. Each is an error or a model; the parser never panics and never takes much memory;
//! and what it accepts, llama.cpp loads or refuses, but never ends the process.
//!
//! The work is done in child processes (this test program, called with one test and a variable in
//! its environment), so that a crash is seen as such and memory is that of the work alone.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use enginewright::backend::llama::{LlamaConfig, LlamaLoader};
use enginewright::backend::{Loader, LogitsWanted, Run, SlotId};
use enginewright::model;
use enginewright::model::gguf::{GgufFile, TensorType};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Mutations, and how many of those that the parser accepts llama.cpp is given. `make soak` sets
/// `ENGINEWRIGHT_SOAK`: ten times as many, and all of them.
fn extent() -> (u64, usize) {
    if std::env::var_os("ENGINEWRIGHT_SOAK").is_some() {
        (10_000, usize::MAX)
    } else {
        (1_000, 100)
    }
}

const ROLE: &str = "ENGINEWRIGHT_TEST_ROLE";
const MODEL: &str = "ENGINEWRIGHT_TEST_MODEL";

/// A real header, and where its numbers are.
struct Header {
    bytes: Vec<u8>,
    file_len: u64,
    /// Position and width of counts, lengths, types, dimensions, offsets and scalar values.
    fields: Vec<(usize, usize)>,
}

impl Header {
    fn read(path: &Path) -> Self {
        let parsed = GgufFile::open(path).unwrap();
        let mut bytes = vec![0; usize::try_from(parsed.data_offset()).unwrap()];
        std::fs::File::open(path)
            .unwrap()
            .read_exact(&mut bytes)
            .unwrap();
        let fields = Walk::new(&bytes).fields();
        Self {
            bytes,
            file_len: parsed.file_len(),
            fields,
        }
    }

    /// The mutation with this number: the header, and the length of the file.
    fn mutation(&self, number: u64) -> (Vec<u8>, u64) {
        let mut random = SmallRng::seed_from_u64(number);
        let mut bytes = self.bytes.clone();
        let mut length = self.file_len;
        for _ in 0..=random.random_range(0..3_u32) / 2 {
            match random.random_range(0..100_u32) {
                0..45 => self.lie(&mut bytes, &mut random),
                45..65 => self.nudge(&mut bytes, &mut random),
                65..90 => {
                    let at = random.random_range(0..bytes.len());
                    bytes[at] ^= 1 << random.random_range(0..8_u32);
                }
                90..95 => length = random.random_range(0..self.bytes.len() as u64),
                _ => length = random.random_range(0..self.file_len),
            }
        }
        (bytes, length)
    }

    /// Writes an extreme value into a field.
    fn lie(&self, bytes: &mut [u8], random: &mut SmallRng) {
        const LIES: [u64; 14] = [
            0,
            1,
            2,
            3,
            9,
            0x7f,
            0xffff,
            0x7fff_ffff,
            0xffff_ffff,
            1 << 40,
            i64::MAX as u64,
            1 << 63,
            u64::MAX - 31,
            u64::MAX,
        ];
        let (at, width) = self.fields[random.random_range(0..self.fields.len())];
        let lie = match random.random_range(0..=LIES.len()) {
            chosen if chosen < LIES.len() => LIES[chosen],
            _ => self.file_len,
        };
        bytes[at..at + width].copy_from_slice(&lie.to_le_bytes()[..width]);
    }

    /// Changes a field by a little.
    fn nudge(&self, bytes: &mut [u8], random: &mut SmallRng) {
        let (at, width) = self.fields[random.random_range(0..self.fields.len())];
        let mut value = [0; 8];
        value[..width].copy_from_slice(&bytes[at..at + width]);
        let delta = random.random_range(1..=64_u64);
        let value = if random.random() {
            u64::from_le_bytes(value).wrapping_add(delta)
        } else {
            u64::from_le_bytes(value).wrapping_sub(delta)
        };
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// A second, careless reader of the format: it only has to find the fields of a good file.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    fields: Vec<(usize, usize)>,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            fields: Vec::new(),
        }
    }

    fn number(&mut self, width: usize, remember: bool) -> u64 {
        let mut value = [0; 8];
        value[..width].copy_from_slice(&self.bytes[self.at..self.at + width]);
        if remember {
            self.fields.push((self.at, width));
        }
        self.at += width;
        u64::from_le_bytes(value)
    }

    fn string(&mut self, remember: bool) {
        let length = self.number(8, remember);
        self.at += usize::try_from(length).unwrap();
    }

    fn value(&mut self, kind: u64, remember: bool) {
        match kind {
            0 | 1 | 7 => _ = self.number(1, remember),
            2 | 3 => _ = self.number(2, remember),
            4..=6 => _ = self.number(4, remember),
            8 => self.string(remember),
            9 => {
                let kind = self.number(4, remember);
                let count = self.number(8, remember);
                // Of long arrays, only some elements: the vocabulary would be most of the fields.
                (0..count).for_each(|index| self.value(kind, index % 4096 == 0));
            }
            _ => _ = self.number(8, remember),
        }
    }

    fn fields(mut self) -> Vec<(usize, usize)> {
        self.number(4, true);
        self.number(4, true);
        let tensors = self.number(8, true);
        let entries = self.number(8, true);
        for _ in 0..entries {
            self.string(true);
            let kind = self.number(4, true);
            // Twice: entries are fewer than tensors, and lie in more ways.
            let (start, before) = (self.at, self.fields.len());
            self.value(kind, true);
            let again = self.fields[before..].to_vec();
            assert!(start <= self.at);
            for _ in 0..8 {
                self.fields.extend_from_slice(&again);
            }
        }
        for _ in 0..tensors {
            self.string(true);
            let dimensions = self.number(4, true);
            (0..dimensions).for_each(|_| _ = self.number(8, true));
            assert!(
                TensorType::from_number(u32::try_from(self.number(4, true)).unwrap()).is_some()
            );
            self.number(8, true);
        }
        self.fields
    }
}

fn child(role: &str, model: &Path) -> (Child, ChildStdin, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "hostile_models::does_what_the_parent_asks",
            "--exact",
            "--nocapture",
        ])
        .env(ROLE, role)
        .env(MODEL, model)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, input, output)
}

/// The next line that the child says to its parent; `None` when it ended.
fn heard(output: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some((_, said)) = line.split_once("child says: ") {
            return Some(said.trim_end().to_owned());
        }
        line.clear();
    }
    None
}

fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "child says: {text}").unwrap();
    stdout.flush().unwrap();
}

/// Not a test of its own: the child of the others. Without a parent it has nothing to do.
#[test]
fn does_what_the_parent_asks() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let path = PathBuf::from(std::env::var_os(MODEL).unwrap());
    match role.as_str() {
        "parse" => parse_all(&path),
        "load" => load_each(&path),
        other => panic!("no role {other}"),
    }
}

fn parse_all(path: &Path) {
    let header = Header::read(path);
    for number in 0..extent().0 {
        let (bytes, length) = header.mutation(number);
        // The reader never looks at tensor data: zeros without end will do, and take no memory.
        let file = bytes.as_slice().chain(std::io::repeat(0)).take(length);
        let verdict = match GgufFile::parse(file, length) {
            Ok(file) => match model::check(&file) {
                Ok(_) => "accepted".to_owned(),
                Err(error) => format!("refused {error}"),
            },
            Err(error) => format!("refused {error}"),
        };
        say(&format!("{number} {verdict}"));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    say(peak);
}

fn load_each(path: &Path) {
    for _ in std::io::stdin().lines() {
        let mut config = LlamaConfig::new(path);
        config.slots = 1;
        config.context_tokens = Some(256);
        config.threads = Some(1);
        let mut drive = |backend: &mut dyn enginewright::backend::Backend| {
            let run = Run {
                slot: SlotId(0),
                start: 0,
                tokens: vec![1, 2, 3],
                logits: LogitsWanted::Last,
            };
            let answered = backend.forward(&[run], &mut |_, _, _| {});
            say(&format!("loaded, {answered:?}"));
        };
        if let Err(error) = Box::new(LlamaLoader::new(config)).run(&mut drive) {
            say(&format!("refused, {error}"));
        }
    }
}

/// Numbers of the mutations that the parser accepts, and the child's peak memory in KiB.
fn accepted(model: &Path) -> (Vec<u64>, u64, usize) {
    let (mut child, input, mut output) = child("parse", model);
    drop(input);
    let mut accepted = Vec::new();
    let mut reasons = std::collections::BTreeSet::new();
    for expected in 0..extent().0 {
        let line = heard(&mut output)
            .unwrap_or_else(|| panic!("mutation {expected} ended the process of the parser"));
        let (number, verdict) = line.split_once(' ').unwrap();
        assert_eq!(number, expected.to_string());
        match verdict.strip_prefix("refused ") {
            Some(reason) => {
                assert!(reason.len() < 2_000, "mutation {number}: {reason}");
                reasons.insert(reason.to_owned());
            }
            None => accepted.push(expected),
        }
    }
    let peak = heard(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    let peak = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    (accepted, peak, reasons.len())
}

#[test]
fn a_thousand_mutations_are_errors_or_models_and_llama_cpp_survives_those_accepted() {
    let model = super::tools::model();
    let (accepted, peak, reasons) = accepted(&model);
    // Both happen often, or the mutations test nothing; and errors tell many different stories.
    let count = accepted.len();
    let (mutations, loads) = extent();
    let share = count * 100 / usize::try_from(mutations).unwrap();
    assert!(
        (5..80).contains(&share),
        "{count} of {mutations} were accepted"
    );
    assert!(reasons > 200, "only {reasons} different errors");
    assert!(peak < 96 << 10, "the parser's process took {peak} KiB");

    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("mutated.gguf");
    std::fs::copy(&model, &copy).unwrap();
    let header = Header::read(&model);
    let file = OpenOptions::new().write(true).open(&copy).unwrap();
    let (mut process, mut input, mut output) = child("load", &copy);
    let mut loaded = 0;
    let step = (count / loads).max(1);
    for &number in accepted.iter().step_by(step) {
        let (bytes, length) = header.mutation(number);
        assert_eq!(length, header.file_len, "a truncated model was accepted");
        file.write_all_at(&bytes, 0).unwrap();
        writeln!(input, "load").unwrap();
        let answer = heard(&mut output);
        let Some(answer) = answer else {
            panic!(
                "llama.cpp ended the process on mutation {number}: {:?}",
                process.wait()
            );
        };
        loaded += usize::from(answer.starts_with("loaded"));
    }
    drop(input);
    assert!(process.wait().unwrap().success());
    // Most accepted mutations change a token's text or a number that is not read: those do load.
    assert!(loaded > 10, "only {loaded} were loaded");
    println!(
        "{mutations} mutations: {count} accepted, {loaded} loaded, peak {peak} KiB, {reasons} errors"
    );
}
