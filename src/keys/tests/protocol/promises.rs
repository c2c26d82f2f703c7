//! What must hold in every state of the model, and what must be reached in some, so that the model is not empty.

use super::{
    Protocol,
    world::{At, Phase, Set, World, members, one},
};
use stateright::Property;

pub const DESTROYED: &str =
    "what was acknowledged as destroyed opens nowhere: no root that ever sealed it has k shares left";
pub const UNDONE: &str = "I4: no running gateway has what was acknowledged as erased";
pub const LOST: &str = "an acknowledged create is there, or an erasure of it was asked for";
pub const BELOW: &str = "I9: all that the present root ever sealed lives, or was never acknowledged";
pub const SETTLES: &str = "I3: whichever k slots are back, with S3, a start settles";
pub const BACKUP: &str = "the newest backup opens with whichever k of its slots are left";
pub const HISTORY: &str = "I3: there is one history: the backup is never ahead of the gateway, nor beside it";
pub const LINGERS: &str = "once every slot is back and tidied, only lost ones hold anything of old roots";

type Condition = fn(&Protocol, &World) -> bool;

fn always(name: &'static str, condition: Condition) -> Property<Protocol> {
    Property::always(name, condition)
}

fn sometimes(name: &'static str, condition: Condition) -> Property<Protocol> {
    Property::sometimes(name, condition)
}

pub fn properties() -> Vec<Property<Protocol>> {
    vec![
        always(DESTROYED, |protocol, world| {
            let roots = (0..).zip(world.sealed).filter(|(_, sealed)| sealed & world.forgotten != 0);
            roots.into_iter().all(|(root, _)| world.holders(root) < protocol.need)
        }),
        always(UNDONE, |_, world| running(world).is_none_or(|live| live & world.forgotten == 0)),
        always(LOST, |protocol, world| {
            let backup = !protocol.backup || world.stored & !world.backup.live & !world.doomed == 0;
            backup && running(world).is_none_or(|live| world.acked & !live & !world.doomed == 0)
        }),
        always(BELOW, |_, world| {
            let Some(last) = world.last().filter(|_| world.phase != Phase::Down) else { return true };
            world.sealed[usize::from(last.root)] & !last.live & world.acked == 0
        }),
        always(SETTLES, settles),
        always(BACKUP, |protocol, world| {
            let left = !world.at(At::Gone) & world.backup.members;
            let opens = protocol.matching(world, world.backup, left) == left;
            !protocol.backup || left.count_ones() < protocol.need || opens
        }),
        always(HISTORY, |protocol, world| {
            let Some(last) = world.last().filter(|_| protocol.backup && world.phase == Phase::Idle) else {
                return true;
            };
            let same = (world.backup.root, world.backup.live) == (last.root, last.live);
            world.backup.number < last.number || (world.backup.number == last.number && same)
        }),
        always(LINGERS, |protocol, world| {
            let Some(last) = world.last().filter(|_| world.phase == Phase::Idle) else { return true };
            let old = |slot: u8| world.slots[usize::from(slot)].holds() & !one(last.root) != 0;
            let current = || !protocol.backup || world.s3 && !protocol.is_behind(world);
            let tidy = || world.at(At::Away) == 0 && protocol.untidy(world).next().is_none();
            !members(world.at(At::Here)).any(old) || !tidy() || !current()
        }),
    ]
}

fn running(world: &World) -> Option<Set> {
    world.last().filter(|_| world.phase != Phase::Down).map(|last| last.live)
}

fn settles(protocol: &Protocol, world: &World) -> bool {
    let Some(disk) = &world.disk else { return true };
    if world.phase != Phase::Down || disk.bad.is_some() {
        return true;
    }
    let world = World { s3: true, ..world.clone() };
    let left = !world.at(At::Gone);
    match protocol.consider(&world, left) {
        Some((image, _)) => protocol.matching(&world, image, left) == left & image.members,
        // An older copy that was put there is to be refused.
        None if world.left.rollbacks < protocol.bounds.rollbacks => true,
        None => (left & disk.last().members).count_ones() < protocol.need,
    }
}

pub const ACKNOWLEDGED: &str = "an erasure is acknowledged";
pub const FORWARD: &str = "a start carries a rotation on from its file";
pub const BACK: &str = "a start unlinks a torn file and lets go of a staged root";
pub const ALREADY: &str = "a start finds a file whose batch is there";
pub const BEHIND: &str = "a create follows a rotation that no slot has tidied up behind yet";
pub const RETURNED: &str = "a slot comes back that has missed a rotation whose erasure was acknowledged";
pub const WAITING: &str = "a start needs a share that waited for its slot";
pub const OWED: &str = "a rotation is through and not destroyed, because a slot is away";
pub const RETIRED: &str = "a retired slot has a share of the root of an acknowledged erasure for good";
pub const AWAY: &str = "S3 is away, and an erasure is sealed and not destroyed";
pub const BEYOND: &str = "S3 was away and is back, and an erasure is acknowledged";
pub const RESTORED: &str = "a lost node is restored, and an erasure acknowledged";
pub const REFUSED: &str = "a start refuses a log that is damaged before its end";
pub const FILLED: &str = "a rotation that the log has lost is filled from its file";

/// What a run must come upon, by name.
pub fn sights(names: &[&'static str]) -> Vec<Property<Protocol>> {
    let all = [
        sometimes(ACKNOWLEDGED, |_, world| world.forgotten != 0),
        sometimes(FORWARD, |protocol, world| {
            found(protocol, world).is_some_and(|(_, decision)| !decision.fill.is_empty())
        }),
        sometimes(BACK, |protocol, world| {
            found(protocol, world).is_some_and(|(image, decision)| {
                let staged = world.slots.iter().any(|slot| slot.shares & !one(image.root) != 0);
                !decision.torn.is_empty() && staged
            })
        }),
        sometimes(ALREADY, |protocol, world| {
            found(protocol, world).is_some_and(|(_, decision)| decision.fill.is_empty() && !decision.done.is_empty())
        }),
        sometimes(BEHIND, |protocol, world| {
            world.phase == Phase::Creating
                && world.last().is_some_and(|last| last.root > 0)
                && protocol.untidy(world).count() == protocol.members.count_ones() as usize
        }),
        sometimes(RETURNED, |protocol, world| {
            let Some(last) = world.last().filter(|_| world.phase == Phase::Idle) else { return false };
            let missed = |slot: u8| world.slots[usize::from(slot)].shares & one(last.root) == 0;
            world.forgotten != 0 && protocol.untidy(world).any(|slot| last.members & one(slot) != 0 && missed(slot))
        }),
        sometimes(WAITING, |protocol, world| {
            let Some((image, _)) = found(protocol, world) else { return false };
            let shares = |slot: &u8| world.slots[usize::from(*slot)].shares & one(image.root) != 0;
            (members(world.at(At::Here)).filter(shares).count() as u32) < protocol.need
        }),
        sometimes(OWED, |protocol, world| {
            let tidy = world.phase == Phase::Idle && protocol.untidy(world).next().is_none();
            tidy && world.s3
                && world.owed() != 0
                && (0..world.last().map_or(0, |last| last.root)).any(|root| world.holders(root) >= protocol.need)
        }),
        sometimes(RETIRED, |_, world| {
            let Some(last) = world.last().filter(|_| world.phase == Phase::Idle) else { return false };
            world.forgotten != 0 && (world.at(At::Gone) & !last.members) != 0
        }),
        sometimes(AWAY, |protocol, world| {
            let tidy = world.phase == Phase::Idle && protocol.untidy(world).next().is_none();
            tidy && !world.s3 && world.owed() != 0
        }),
        sometimes(BEYOND, |_, world| world.left.outages == 0 && world.s3 && world.forgotten != 0),
        sometimes(RESTORED, |_, world| world.left.disks == 0 && world.phase == Phase::Idle && world.forgotten != 0),
        sometimes(REFUSED, |protocol, world| {
            let bad = world.disk.as_ref().is_some_and(|disk| disk.bad.is_some());
            bad && protocol.consider(world, world.at(At::Here)).is_none()
        }),
        sometimes(FILLED, |protocol, world| {
            let bad = world.disk.as_ref().is_some_and(|disk| disk.bad.is_some());
            bad && found(protocol, world).is_some_and(|(_, decision)| !decision.fill.is_empty())
        }),
    ];
    all.into_iter().filter(|property| names.contains(&property.name)).collect()
}

fn found(protocol: &Protocol, world: &World) -> Option<(super::world::Image, crate::keys::start::decide::Decision)> {
    if world.phase == Phase::Down { protocol.consider(world, world.at(At::Here)) } else { None }
}
