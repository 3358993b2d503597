//! What a translated answer is made of, whatever dialect it was read from and is written in.
//!
//! Pure.

use crate::text::tools::ToolDelta;
use crate::wire::ollama;
use crate::wire::openai::FinishReason;

/// Something that was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text for the reader.
    Text(String),
    /// A tool call begins.
    CallStart {
        /// Which, from 0.
        index: u32,
        /// The tool.
        name: String,
    },
    /// More of its arguments.
    CallArguments {
        /// Which call.
        index: u32,
        /// JSON text.
        fragment: String,
    },
    /// The end.
    End {
        /// Why.
        reason: FinishReason,
        /// Counts and times, as Ollama tells them.
        counts: ollama::Counts,
    },
}

impl Piece {
    /// The call that it belongs to.
    pub const fn call(&self) -> Option<u32> {
        match self {
            Self::CallStart { index, .. } | Self::CallArguments { index, .. } => Some(*index),
            Self::Text(_) | Self::End { .. } => None,
        }
    }
}

/// How many calls there are once `pieces` are told.
pub fn calls_in(pieces: &[Piece]) -> u32 {
    let last = pieces.iter().filter_map(Piece::call).max();
    last.map_or(0, |index| index + 1)
}

impl From<ToolDelta> for Piece {
    fn from(delta: ToolDelta) -> Self {
        match delta {
            ToolDelta::Content(text) => Self::Text(text),
            ToolDelta::CallStart { index, name } => Self::CallStart { index, name },
            ToolDelta::CallArguments { index, fragment } => Self::CallArguments { index, fragment },
        }
    }
}
