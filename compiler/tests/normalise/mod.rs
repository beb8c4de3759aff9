//! Each pattern of the normalise stage: exporters' spellings are recognised and compute the same, near misses stay.

mod attention;
mod recognised;
mod spelling;
mod tidying;
