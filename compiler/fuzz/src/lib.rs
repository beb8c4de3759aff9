//! What the fuzz targets share: mutations that keep the structure of their inputs, and the compiler's street for
//! graphs that are small enough.

pub mod model;
pub mod program;
pub mod random;
pub mod street;
pub mod text;
