//! Approvals: the section of the configuration, who an approver is, what they can do on the command line, and where else
//! they are asked.

mod command;
mod desk;
mod section;
mod surfaces;

pub use self::{
    command::{Approvals, run},
    desk::Desk,
    section::{ApprovalsSection, check_groups},
    surfaces::Surfaces,
};
