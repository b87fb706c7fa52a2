//! The name of a host, as it is compared: no URL, no port, one spelling.

use std::fmt;

use rustls::pki_types::ServerName;
use serde::Deserialize;
use thiserror::Error;

/// What is no name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a host is named by its name or its address, without scheme, port or path")]
pub struct InvalidHostName;

/// A DNS name in lower case, or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(String);

impl HostName {
    /// Reads a name; an IPv6 address may stand in brackets, as it does in URLs.
    ///
    /// # Errors
    /// [`InvalidHostName`].
    pub fn parse(text: &str) -> Result<Self, InvalidHostName> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let name = ServerName::try_from(bare.unwrap_or(text)).map_err(|_| InvalidHostName)?;
        let is_ipv6 = matches!(name, ServerName::IpAddress(rustls::pki_types::IpAddr::V6(_)));
        let last = text.rsplit('.').next().unwrap_or_default();
        // Whoever connects may read such a label as part of an IPv4 address, and a dot at the end as nothing.
        let is_number = last.strip_prefix(['0']).is_some_and(|rest| rest.starts_with(['x', 'X']));
        if (bare.is_some() && !is_ipv6) || is_number || last.is_empty() {
            return Err(InvalidHostName);
        }
        Ok(Self(name.to_str().to_ascii_lowercase()))
    }

    /// Its one spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = InvalidHostName;

    fn try_from(text: String) -> Result<Self, InvalidHostName> {
        Self::parse(&text)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling_and_is_no_url() {
        for (text, name) in [
            ("Keys.Example", "keys.example"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
        ] {
            assert_eq!(HostName::parse(text).unwrap().as_str(), name);
        }
        for text in [
            "",
            "https://keys.example",
            "keys.example:443",
            "[2001:db8::1]:443",
            "keys.example/keys",
            "user@keys.example",
            "*.example",
            "keys example",
            "keys.example.",
            "[keys.example]",
            "[192.0.2.1]",
            "[]",
            // Addresses of this machine in the spelling of 1983.
            "127.1",
            "2130706433",
            "0x7f000001",
            "0X7F.0x1",
        ] {
            assert_eq!(HostName::parse(text), Err(InvalidHostName), "{text}");
        }
    }
}
