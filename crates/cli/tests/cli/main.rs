//! The program from outside: what it prints, what it exits with.

mod chat;
mod embed;
mod failures;
mod measure;
mod models;
mod real_model;
mod run;
mod support;
mod tokens;
