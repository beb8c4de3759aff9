//! A network as two numbers, to emulate one and to predict for one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{found}\" is no network, expected is loopback, lan, wan, or a bandwidth and a round trip such as 200Mbit,40ms"
)]
pub struct NetworkError {
    /// The text.
    pub found: String,
}

/// Bandwidth in each direction and round-trip time between two parties.
///
/// Parses from `loopback`, `lan` (1 Gbit/s, 1 ms), `wan` (100 Mbit/s, 40 ms), or `BANDWIDTH,RTT` such as
/// `200Mbit,40ms`: units `bit`, `kbit`, `Mbit`, `Gbit`, and `us`, `ms`, `s`, in any case.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Bits per second, each way.
    pub bandwidth_bits_per_second: f64,
    /// Seconds there and back.
    pub rtt_seconds: f64,
}

impl Network {
    /// Two processes on one machine, as TLS over it performs: about 1 GB/s and 40 us.
    pub const LOOPBACK: Network = Network { bandwidth_bits_per_second: 8e9, rtt_seconds: 40e-6 };
    /// Two machines in one building.
    pub const LAN: Network = Network { bandwidth_bits_per_second: 1e9, rtt_seconds: 1e-3 };
    /// Two machines on one continent.
    pub const WAN: Network = Network { bandwidth_bits_per_second: 100e6, rtt_seconds: 40e-3 };

    /// Its rate in kbit/s, as programs say it.
    pub fn kbits_per_second(&self) -> u64 {
        (self.bandwidth_bits_per_second / 1e3).round() as u64
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// # Errors
    /// A text of another form, or a number out of bounds: 1 kbit/s to 10 Tbit/s, up to a minute.
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        match text {
            "loopback" => return Ok(Network::LOOPBACK),
            "lan" => return Ok(Network::LAN),
            "wan" => return Ok(Network::WAN),
            _ => {}
        }
        let parsed = text.split_once(',').and_then(|(bandwidth, rtt)| {
            Some(Network {
                bandwidth_bits_per_second: quantity(
                    bandwidth,
                    &[("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)],
                )?,
                rtt_seconds: quantity(rtt, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])?,
            })
        });
        parsed
            .filter(|network| {
                (1e3..=1e13).contains(&network.bandwidth_bits_per_second)
                    && (0.0..=60.0).contains(&network.rtt_seconds)
            })
            .ok_or_else(|| NetworkError { found: text.to_owned() })
    }
}

fn quantity(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.trim().parse::<f64>().ok()? * factor)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Mbit,{}ms", self.bandwidth_bits_per_second / 1e6, self.rtt_seconds * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_says() {
        let close = |text: &str, bandwidth: f64, rtt: f64| {
            let network: Network = text.parse().unwrap();
            assert!((network.bandwidth_bits_per_second / bandwidth - 1.0).abs() < 1e-12, "{text}");
            assert!((network.rtt_seconds - rtt).abs() < 1e-12, "{text}");
        };
        close("lan", 1e9, 1e-3);
        close("wan", 1e8, 40e-3);
        close("200Mbit,40ms", 2e8, 40e-3);
        close("1Gbit,1ms", 1e9, 1e-3);
        close("0.5gbit, 250 us", 5e8, 250e-6);
        close("64kbit,1s", 64e3, 1.0);
        assert_eq!(Network::WAN.to_string().parse::<Network>().unwrap(), Network::WAN);
        assert_eq!("loopback".parse::<Network>().unwrap(), Network::LOOPBACK);
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "fast",
            "1Gbit",
            "1Gbit,",
            ",1ms",
            "-1Gbit,1ms",
            "nanbit,1ms",
            "1Gbit,-1ms",
            "infGbit,1s",
            "1,1",
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert_eq!(error.found, text);
        }
    }
}
