pub mod history;
pub mod limited;
