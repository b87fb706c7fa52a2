//! The journal in SQLite through its public doors.

#[cfg(test)]
mod acknowledge;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod open;
#[cfg(test)]
mod verify;
