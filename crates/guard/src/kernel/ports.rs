//! Ports to protect, as an operator writes them.

use crate::Protocol;
use std::{fmt, ops::RangeInclusive};

/// Ports that one guard protects, at most: the list is part of every status.
pub const PROTECT_MAX: usize = 4096;

/// A port, or a run of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Protocol.
    pub protocol: Protocol,
    /// From the first to the last.
    pub numbers: RangeInclusive<u16>,
    /// They speak QUIC and nothing else.
    pub quic: bool,
}

impl std::str::FromStr for Ports {
    type Err = String;

    /// Reads `tcp/30303`, `udp/8000-8020`, `quic/4001`.
    fn from_str(text: &str) -> Result<Ports, String> {
        let (protocol, numbers) =
            text.split_once('/').ok_or("a port is tcp/NUMBER, udp/NUMBER, quic/NUMBER or a run udp/FIRST-LAST")?;
        let (protocol, quic) = match protocol {
            "tcp" => (Protocol::Tcp, false),
            "udp" => (Protocol::Udp, false),
            "quic" => (Protocol::Udp, true),
            _ => return Err(format!("'{protocol}' is neither tcp nor udp nor quic")),
        };
        let number = |text: &str| text.parse::<u16>().map_err(|_| format!("'{text}' is no port"));
        let (first, last) = match numbers.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(numbers)?, number(numbers)?),
        };
        if first > last {
            return Err(format!("{first}-{last} ends before it begins"));
        }
        Ok(Ports { protocol, numbers: first..=last, quic })
    }
}

/// All ports one by one, sorted, each once; and those that speak QUIC.
pub type Protected = (Vec<(Protocol, u16)>, Vec<u16>);

/// Spells a list of runs out; refuses one of more than [`PROTECT_MAX`] ports, or of none.
pub fn spell_out(list: &[Ports]) -> Result<Protected, String> {
    let all = || list.iter().flat_map(|ports| ports.numbers.clone().map(|number| (ports.protocol, number, ports.quic)));
    let mut protect: Vec<(Protocol, u16)> = all().map(|(protocol, number, _)| (protocol, number)).collect();
    protect.sort_unstable();
    protect.dedup();
    let mut quic: Vec<u16> = all().filter(|(.., quic)| *quic).map(|(_, number, _)| number).collect();
    quic.sort_unstable();
    quic.dedup();
    match protect.len() {
        0 => Err("no port to protect: name one, e.g. tcp/30303".to_string()),
        count if count > PROTECT_MAX => Err(format!("{count} ports to protect: {PROTECT_MAX} is the most")),
        _ => Ok((protect, quic)),
    }
}

/// The list in few words: neighbours of one protocol are a run. Expects what [`spell_out`] made.
pub fn summary(protect: &[(Protocol, u16)]) -> Vec<String> {
    let mut runs: Vec<Ports> = Vec::new();
    for (protocol, number) in protect {
        match runs.last_mut() {
            Some(run) if run.protocol == *protocol && run.numbers.end().checked_add(1) == Some(*number) => {
                run.numbers = *run.numbers.start()..=*number;
            }
            _ => runs.push(Ports { protocol: *protocol, numbers: *number..=*number, quic: false }),
        }
    }
    runs.iter().map(Ports::to_string).collect()
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.numbers.start(), self.numbers.end());
        let protocol = if self.quic { "quic" } else { self.protocol.as_str() };
        if first == last { write!(f, "{protocol}/{first}") } else { write!(f, "{protocol}/{first}-{last}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<Ports> {
        text.split(',').map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn runs_are_spelled_out_and_back() {
        let (protect, quic) = spell_out(&list("udp/8000-8002,tcp/30303,quic/8002,quic/4001,udp/8000")).unwrap();
        assert_eq!(quic, [4001, 8002]);
        assert_eq!(summary(&protect), ["tcp/30303", "udp/4001", "udp/8000-8002"]);
        assert_eq!(summary(&spell_out(&list("udp/65534-65535,tcp/0")).unwrap().0), ["tcp/0", "udp/65534-65535"]);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bad in ["", "tcp", "tcp/", "sctp/1", "udp/65536", "udp/9-8", "udp/1-2-3", "udp/-1", "udp/1-"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
        assert!(spell_out(&[]).is_err());
        assert!(spell_out(&list("udp/1-4096")).is_ok());
        assert!(spell_out(&list("udp/1-4097")).is_err());
    }
}
