//! The built daemon, over real TLS, through every method: what it answers and what its journal holds afterwards.

#[cfg(test)]
mod credential;
#[cfg(test)]
mod holder;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod introspect;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod shape;
#[cfg(test)]
mod stock;
#[cfg(test)]
mod task;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;
