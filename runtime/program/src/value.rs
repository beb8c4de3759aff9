//! The types of a program's values: who holds what, in which ring.

use marill_plaintext::DType;

/// A party that may know a value in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Owner {
    /// Both parties.
    Public = 0,
    /// P0.
    Client = 1,
    /// P1.
    Server = 2,
}

/// Who receives an opened masked value or a revealed output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Target {
    Both = 0,
    Client = 1,
    Server = 2,
}

impl Target {
    /// Whether the client receives it.
    pub fn includes_client(self) -> bool {
        self != Target::Server
    }

    /// Whether the server receives it.
    pub fn includes_server(self) -> bool {
        self != Target::Client
    }
}

/// How a value is held. `width` is the ring's k in Z_2^k (1 ..= 64), `frac` the fraction bits: a ring element `v`,
/// read as a signed integer, stands for `v / 2^frac`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// A clear tensor that `owner` computes.
    Plain { owner: Owner, dtype: DType },
    /// Ring elements that `owner` knows.
    Known { owner: Owner, width: u32, frac: u32 },
    /// The server's constant `W`; the client holds `W - B`, opened once at setup, with `B` known to the server.
    Weight { width: u32, frac: u32 },
    /// Additive shares modulo 2^width.
    Arithmetic { width: u32, frac: u32 },
    /// XOR shares of words of `width` bits.
    Boolean { width: u32 },
    /// `x + r mod 2^width`, known to `to`. Opened to both, `r` is the sum of one mask of each party; opened to one
    /// party, `r` is the other party's mask alone.
    Masked { width: u32, frac: u32, to: Target },
    /// Words `b ^ beta` of `width` bits, known to both; each party has an XOR share of `beta`.
    MaskedBits { width: u32 },
}

impl Form {
    /// Ring width of the form in bits, if it has one.
    pub fn width(&self) -> Option<u32> {
        match *self {
            Form::Plain { .. } => None,
            Form::Known { width, .. }
            | Form::Weight { width, .. }
            | Form::Arithmetic { width, .. }
            | Form::Boolean { width }
            | Form::Masked { width, .. }
            | Form::MaskedBits { width } => Some(width),
        }
    }

    /// Fraction bits of the form, if it has them.
    pub fn frac(&self) -> Option<u32> {
        match *self {
            Form::Known { frac, .. }
            | Form::Weight { frac, .. }
            | Form::Arithmetic { frac, .. }
            | Form::Masked { frac, .. } => Some(frac),
            _ => None,
        }
    }

    /// The form in a ring of `width` bits, of which `frac` are fraction bits; others than numbers stay as they are.
    pub(crate) fn with_ring(self, width: u32, frac: u32) -> Form {
        match self {
            Form::Known { owner, .. } => Form::Known { owner, width, frac },
            Form::Weight { .. } => Form::Weight { width, frac },
            Form::Arithmetic { .. } => Form::Arithmetic { width, frac },
            Form::Masked { to, .. } => Form::Masked { width, frac, to },
            other => other,
        }
    }
}

/// Form and shape of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueType {
    pub form: Form,
    pub shape: Vec<usize>,
}

impl ValueType {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ring width of the form in bits, if it has one.
    pub fn width(&self) -> Option<u32> {
        self.form.width()
    }

    /// Fraction bits of the form, if it has them.
    pub fn frac(&self) -> Option<u32> {
        self.form.frac()
    }
}
