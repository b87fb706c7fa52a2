//! The built daemon, over real TLS, through every method: what it answers and what its journal holds afterwards.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod bearer;
#[cfg(test)]
mod canaries;
#[cfg(test)]
mod credential;
#[cfg(test)]
mod delegate;
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod documented;
#[cfg(test)]
mod every_method;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod hardening;
#[cfg(test)]
mod holder;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod introspect;
#[cfg(test)]
mod jwt_svid;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod lease;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod lock;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod quota;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod renew;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod root_socket;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod shape;
#[cfg(test)]
mod stock;
#[cfg(test)]
mod svid;
#[cfg(test)]
mod task;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod undelivered;
#[cfg(test)]
mod watch;
#[cfg(test)]
mod wire;
#[cfg(test)]
mod world;
