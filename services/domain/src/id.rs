//! Names of things: newtypes, parsed at the edge and trusted afterwards.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A field that could not be taken: which, what the limit is, what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is outside the limit: {limit}")]
pub struct FieldError {
    /// The field, as a path in the message.
    pub field: &'static str,
    /// The limit, in words.
    pub limit: String,
    /// The value, cut to 64 bytes. Never personal data.
    pub value: String,
}

impl FieldError {
    /// A field error; `value` is cut to 64 bytes at a character boundary.
    #[must_use]
    pub fn new(field: &'static str, limit: impl Into<String>, value: impl fmt::Display) -> Self {
        let mut value = value.to_string();
        if value.len() > 64 {
            let mut end = 64;
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            value.truncate(end);
        }
        Self {
            field,
            limit: limit.into(),
            value,
        }
    }
}

/// A contact: one person's need, over all its legs. 128 bits, a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct ContactId(pub u128);

impl ContactId {
    /// From 16 big-endian bytes.
    ///
    /// # Errors
    /// `contact_id` if there are not exactly 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
            FieldError::new(
                "contact_id",
                "exactly 16 bytes",
                format!("{} bytes", bytes.len()),
            )
        })?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// 16 big-endian bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for ContactId {
    /// A UUID in hyphenated lower case.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        write!(
            formatter,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (value >> 96) as u32,
            (value >> 80) as u16,
            (value >> 64) as u16,
            (value >> 48) as u16,
            value & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for ContactId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A caller's pseudonym: 128 bits of a keyed hash of the number. Linkable, not reversible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallerId(pub u128);

/// A restart of a switch: changes at each. Never 0.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct BootId(pub u64);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal, $any:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Longest, in bytes.
            pub const BYTES_MAX: usize = $max;

            /// Parses the text.
            ///
            /// # Errors
            /// Empty, too long, or with characters that are not allowed.
            pub fn parse(text: &str) -> Result<Self, FieldError> {
                let allowed = |byte: u8| {
                    ($any && (0x21..0x7f).contains(&byte))
                        || byte.is_ascii_alphanumeric()
                        || matches!(byte, b'.' | b'_' | b'-')
                };
                if text.is_empty() || text.len() > Self::BYTES_MAX || !text.bytes().all(allowed) {
                    let characters = if $any { "printable ASCII" } else { "[A-Za-z0-9._-]" };
                    return Err(FieldError::new(
                        $field,
                        format!("1 to {} bytes of {characters}", Self::BYTES_MAX),
                        text.escape_default(),
                    ));
                }
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// An agent, by staff number. Never a name.
    AgentId, "agent_id", 64, false
);
text_id!(
    /// A switch, as its certificate names it.
    SwitchId, "switch_id", 64, false
);
text_id!(
    /// A call as a switch numbers it; means something only with the switch and its boot.
    CallId, "call_id", 128, true
);
