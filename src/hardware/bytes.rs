//! A number of bytes that people can read and write.

use serde::{Deserialize, Serialize};

/// Bytes. Written in YAML as a number or as `15656Mi`; shown as `15.3 GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 6] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
];

impl std::fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
        let bytes = self.0 as f64;
        let text = match self.0 {
            0 => "0".to_owned(),
            1..102_400 if !self.0.is_multiple_of(1024) => format!("{:.1} KiB", bytes / 1024.0),
            1..1_048_576 => format!("{:.0} KiB", bytes / 1024.0),
            1_048_576..1_073_741_824 => format!("{:.0} MiB", bytes / 1_048_576.0),
            _ => format!("{:.2} GiB", bytes / 1_073_741_824.0),
        };
        formatter.pad(&text)
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit)))
            .unwrap_or((text, 1));
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| {
                format!("`{text}` is no amount of memory: write bytes, or for example 15656Mi")
            })
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_and_shown_as_people_do() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("15656Mi", 15_656 << 20, "15.29 GiB"),
            ("8G", 8_000_000_000, "7.45 GiB"),
            ("512Ki", 512 << 10, "512 KiB"),
            ("900Mi", 900 << 20, "900 MiB"),
            ("23040", 23_040, "22.5 KiB"),
        ] {
            let parsed: Bytes = text.parse().unwrap();
            assert_eq!((parsed.0, parsed.to_string().as_str()), (bytes, shown));
        }
        assert!(
            "12 apples"
                .parse::<Bytes>()
                .unwrap_err()
                .contains("15656Mi")
        );
        assert!("99999999999Gi".parse::<Bytes>().is_err());
    }
}
