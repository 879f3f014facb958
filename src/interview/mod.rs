//! The interviewer.

pub mod llm;
