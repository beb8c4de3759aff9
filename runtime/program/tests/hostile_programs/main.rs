//! Programs that somebody wrote by hand to learn what is not theirs, and the checks that refuse them.

mod build;
mod consent;
mod honest;
mod mutations;
mod oracle;
mod statement;
mod table;
