//! A file as memory: read only where it is touched, given back by the kernel when memory is short.

use std::fs::File;
use std::path::Path;

use crate::tensorrt::TensorRtError;

/// A file mapped into memory, read-only and private.
///
/// The bytes are those on the disk: whoever changes the file changes them. What must be trusted is
/// therefore hashed through the mapping, and the files of a bundle are never written again once they
/// have their name.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the whole file.
    ///
    /// # Errors
    /// When it cannot be opened or mapped; an empty file cannot.
    pub fn open(path: &Path) -> Result<Self, TensorRtError> {
        let unreadable = |source| TensorRtError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        Self::of(&file).map_err(unreadable)
    }

    /// Maps the whole of an open file.
    ///
    /// # Errors
    /// When it cannot be mapped; an empty file cannot.
    pub fn of(file: &File) -> std::io::Result<Self> {
        // SAFETY: the mapping is only ever read as bytes, for which every content is valid. A file
        // that is cut off meanwhile ends the process with SIGBUS, as for every mapped model file;
        // it cannot make a wrong reference, because the address range stays mapped.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self { map })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Tells the kernel that the pages are not needed for now: they leave this process's memory and are
    /// read again from the file when touched.
    pub fn release(&self) {
        // SAFETY: the mapping is read-only and backed by a file: dropped pages are read again with
        // the same content.
        let advised = unsafe {
            self.map
                .unchecked_advise(memmap2::UncheckedAdvice::DontNeed)
        };
        // Advice that is not taken costs memory and nothing else.
        drop(advised);
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
