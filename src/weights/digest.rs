//! Digests of a model's files, and of each tensor in them, from one pass; and the proof that what is
//! read later are the same bytes.
//!
//! An engine is named after the digest of its model. A file that is replaced between hashing and
//! building would make an engine with another model's name, so the bytes of every tensor are hashed
//! again as they stream into the builder, and compared.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::files::SourceFile;
use super::tensors::{Place, Tensor, to_usize};

/// Bytes read at a time.
const CHUNK: u64 = 1 << 20;

/// SHA-256 of some bytes.
type Sha = [u8; 32];

/// Digests of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Of the model: hexadecimal SHA-256 of the GGUF file; of safetensors, of the lines
    /// `<SHA-256 of the file>  <its name>` of `config.json` and all files with tensors, in order.
    pub model: String,
    tensors: BTreeMap<String, Sha>,
}

/// Hashes all of `files` once; `progress` gets the bytes so far and may stop it with `false`.
pub(super) fn digests(
    files: &[SourceFile],
    tensors: &BTreeMap<String, Tensor>,
    configuration: Option<&SourceFile>,
    progress: &mut dyn FnMut(u64) -> bool,
) -> std::io::Result<Digests> {
    let mut found = BTreeMap::new();
    let mut done = 0;
    let mut of_files = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let mut parts: Vec<Part<'_>> = tensors
            .iter()
            .filter_map(|(name, tensor)| Part::of(name, tensor, number))
            .collect();
        parts.sort_by_key(|part| part.start);
        let whole = hash(file, &mut parts, &mut done, progress)?;
        of_files.push((file, whole));
        let hashed = parts
            .into_iter()
            .map(|part| (part.name.to_owned(), part.hash.finalize().into()));
        found.extend(hashed);
    }
    let model = if let (None, [(_, only)]) = (configuration, of_files.as_slice()) {
        hex::encode(only)
    } else {
        let mut all = Sha256::new();
        if let Some(file) = configuration {
            let whole = hash(file, &mut [], &mut done, progress)?;
            of_files.insert(0, (file, whole));
        }
        for (file, digest) in &of_files {
            let name = file.path().file_name().unwrap_or_default();
            let line = format!("{}  {}\n", hex::encode(digest), name.to_string_lossy());
            all.update(line);
        }
        hex::encode(all.finalize())
    };
    Ok(Digests {
        model,
        tensors: found,
    })
}

/// One tensor's bytes within a file.
struct Part<'a> {
    name: &'a str,
    start: u64,
    end: u64,
    hash: Sha256,
}

impl<'a> Part<'a> {
    fn of(name: &'a str, tensor: &Tensor, number: usize) -> Option<Self> {
        match tensor.place {
            Place::File { file, offset, .. } if file == number => Some(Self {
                name,
                start: offset,
                end: offset + tensor.bytes(),
                hash: Sha256::new(),
            }),
            _ => None,
        }
    }
}

/// Hashes one file and, on the way, the parts of it, which are in order and do not overlap.
fn hash(
    file: &SourceFile,
    parts: &mut [Part<'_>],
    done: &mut u64,
    progress: &mut dyn FnMut(u64) -> bool,
) -> std::io::Result<Sha> {
    let mut whole = Sha256::new();
    let mut buffer = Vec::new();
    let mut at = 0;
    let mut first = 0;
    while at < file.length() {
        let end = file.length().min(at + CHUNK);
        buffer.resize(to_usize(end - at), 0);
        file.read_at(at, &mut buffer)?;
        whole.update(&buffer);
        while parts.get(first).is_some_and(|part| part.end <= at) {
            first += 1;
        }
        for part in parts
            .iter_mut()
            .skip(first)
            .take_while(|part| part.start < end)
        {
            let (from, to) = (part.start.max(at) - at, part.end.min(end) - at);
            let piece = buffer.get(to_usize(from)..to_usize(to));
            part.hash.update(piece.unwrap_or_default());
        }
        *done += end - at;
        at = end;
        if !progress(*done) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
    }
    file.check_unchanged()?;
    Ok(whole.finalize().into())
}

/// Compares tensors, as they are read, with their digests.
#[derive(Debug)]
pub(super) struct Watch {
    expected: BTreeMap<String, Sha>,
    running: Mutex<BTreeMap<String, Running>>,
}

#[derive(Clone, Debug, Default)]
struct Running {
    hash: Sha256,
    /// Bytes of the tensor that are hashed.
    done: u64,
}

impl Watch {
    pub(super) fn new(digests: &Digests) -> Self {
        Self {
            expected: digests.tensors.clone(),
            running: Mutex::default(),
        }
    }

    /// Bytes of the tensor `name` were read, from its byte `start` on; it has `length`. What follows
    /// what was read before is hashed; the last byte decides.
    pub(super) fn read(
        &self,
        name: &str,
        start: u64,
        bytes: &[u8],
        length: u64,
    ) -> std::io::Result<()> {
        let Some(expected) = self.expected.get(name) else {
            return Ok(());
        };
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = all.entry(name.to_owned()).or_default();
        if running.done == length {
            return Ok(());
        }
        let Some(known) = running.done.checked_sub(start) else {
            return Ok(());
        };
        let new = bytes.get(to_usize(known)..).unwrap_or_default();
        running.hash.update(new);
        running.done += new.len() as u64;
        if running.done == length && running.hash.clone().finalize()[..] != expected[..] {
            *running = Running::default();
            return Err(std::io::Error::other(
                "its bytes are not those that the model's digest covers: the file was changed in \
                 between, start again",
            ));
        }
        Ok(())
    }

    /// Tensors of which not every byte was read, from the first to the last.
    pub(super) fn unread(&self, tensors: &BTreeMap<String, Tensor>) -> Vec<String> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        self.expected
            .keys()
            .filter(|&name| {
                let length = tensors.get(name).map_or(0, Tensor::bytes);
                running.get(name).map_or(0, |one| one.done) != length
            })
            .cloned()
            .collect()
    }
}
