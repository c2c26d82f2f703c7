//! What the five providers promise, and the two regulators demand, played through: the real process on a clock that the
//! test moves, real S3 objects, and the forensics on the bytes that remain. `docs/promises.md` names each promise with its
//! tests; a test is named after the row that it shows.

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/issuer.rs"]
mod issuer;
#[path = "common/served.rs"]
mod served;
#[path = "common/traces.rs"]
mod traces;
#[path = "common/wire.rs"]
mod wire;

#[path = "promises/broadcloud.rs"]
mod broadcloud;
#[path = "promises/circleloop.rs"]
mod circleloop;
#[path = "promises/cloudtalk.rs"]
mod cloudtalk;
#[path = "promises/customer_notice.rs"]
mod customer_notice;
#[path = "promises/leaks.rs"]
mod leaks;
#[path = "promises/mifid.rs"]
mod mifid;
#[path = "promises/stage.rs"]
mod stage;
#[path = "promises/vclerk.rs"]
mod vclerk;
