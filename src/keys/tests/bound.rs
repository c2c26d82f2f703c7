//! Recordings that belong to several, and what was made from a recording: the arguments of [`super::super::wrap`], each with
//! the test that would catch it being wrong.

use super::{
    super::*,
    add_recording, add_subscriber, add_tenant, commit,
    medium::Disk,
    model::{Forgotten, Model, check, check_found},
    new_recording, open, open_with, sweep_all,
};
use crate::{
    crypto::{envelope::Kind, random},
    domain::time::Minute,
};
use std::{collections::HashSet, sync::Arc};

struct World {
    disk: Arc<Disk>,
    keys: KeyStore,
    tenant: TenantHandle,
    owner: SubscriberHandle,
    parties: Vec<SubscriberHandle>,
}

fn world(parties: usize) -> World {
    let disk = Disk::new();
    let keys = open(&disk);
    let tenant = add_tenant(&keys, "acme");
    let owner = add_subscriber(&keys, tenant, "owner");
    let parties = (0..parties).map(|number| add_subscriber(&keys, tenant, &number.to_string())).collect();
    World { disk, keys, tenant, owner, parties }
}

impl World {
    /// A recording of the owner, bound to everybody.
    fn bound(&self, wrapped: bool) -> RecordingPath {
        let (at, mut change) = new_recording(self.tenant, self.owner, 1);
        if let Change::AddRecording { parties, wrapped: wrap, .. } = &mut change {
            (*parties, *wrap) = (self.parties.clone(), wrapped);
        }
        commit(&self.keys, vec![change]).expect("a recording");
        at
    }

    fn child(&self, parent: RecordingPath) -> RecordingPath {
        let (at, change) = child_of(parent);
        commit(&self.keys, vec![change]).expect("a child");
        at
    }

    fn erase_subscriber(&self, subscriber: SubscriberHandle) {
        assert!(commit(&self.keys, vec![Change::EraseSubscriber(self.tenant, subscriber)]).expect("erases").erased);
    }

    fn secrets(&self, at: RecordingPath) -> HashSet<[u8; 32]> {
        let audio = self.keys.audio_leaf(at).expect("reads").expect("lives").audio.expect("lives");
        let facts = self.keys.facts_leaf(at).expect("reads").expect("lives").facts.expect("lives");
        HashSet::from([*audio.expose(), *facts.expose()])
    }

    fn check(&self, secrets: HashSet<[u8; 32]>) {
        let model = Model::of(&self.keys);
        check(&self.disk, &model, &Forgotten { secrets, ..Forgotten::default() });
    }

    fn is_dead(&self, at: RecordingPath) -> bool {
        let dead = self.keys.audio_leaf(at).expect("reads").is_none();
        assert_eq!(dead, self.keys.facts_leaf(at).expect("reads").is_none());
        if let Some(entry) = self.keys.entry(at).expect("reads").filter(|_| dead) {
            assert!(!entry.audio_present && !entry.facts_present);
        }
        dead
    }
}

fn child_of(parent: RecordingPath) -> (RecordingPath, Change) {
    let (at, mut change) = new_recording(parent.tenant, parent.subscriber, 1);
    if let Change::AddRecording { parent: of, .. } = &mut change {
        *of = Some(parent.recording);
    }
    (at, change)
}

fn value(owner: Owner, name: ValueName, secret: &Secret) -> Change {
    let envelope = envelope::seal(name.kind, secret, &name.to_bytes(), b"plain");
    Change::PutValue { owner, name, envelope }
}

#[test]
fn erasing_anybody_who_is_bound_kills_both_leaves_in_every_copy() {
    for who in 0..4 {
        let world = world(3);
        let at = world.bound(true);
        let child = world.child(at);
        let secrets: HashSet<_> = world.secrets(at).union(&world.secrets(child)).copied().collect();
        assert_eq!(secrets.len(), 4);
        world.check(HashSet::new());
        world.erase_subscriber(if who == 3 { world.owner } else { world.parties[who] });
        assert!(world.is_dead(at) && world.is_dead(child));
        world.check(secrets.clone());
        // Nothing else brings it back: neither the others' erasures, nor a fold, nor a restart.
        add_recording(&world.keys, world.tenant, world.parties[(who + 1) % 3]);
        world.erase_subscriber(world.parties[(who + 1) % 3]);
        world.check(secrets.clone());
        let World { disk, keys, .. } = world;
        drop(keys);
        let keys = open(&disk);
        check(&disk, &Model::of(&keys), &Forgotten { secrets, ..Forgotten::default() });
    }
}

#[test]
fn a_recording_that_is_bound_later_has_no_past_in_which_it_was_not() {
    let world = world(2);
    let at = add_recording(&world.keys, world.tenant, world.owner);
    let child = world.child(at);
    let secrets: HashSet<_> = world.secrets(at).union(&world.secrets(child)).copied().collect();
    let bind = |parties: &[SubscriberHandle], wrapped| {
        commit(&world.keys, vec![Change::BindParties { at, parties: parties.to_vec(), wrapped }]).expect("binds")
    };
    assert!(bind(&world.parties[..1], true).erased, "an erasure of the entry as it was");
    let after: HashSet<_> = world.secrets(at).union(&world.secrets(child)).copied().collect();
    assert_eq!(secrets, after, "the same secrets");
    assert!(!bind(&world.parties[..1], true).erased, "nothing to do");
    assert!(bind(&world.parties, true).erased);
    world.check(HashSet::new());
    assert_eq!(world.keys.bound(world.tenant, world.parties[1]).expect("reads").len(), 2);
    world.erase_subscriber(world.parties[1]);
    assert!(world.is_dead(at) && world.is_dead(child));
    world.check(secrets);
    assert!(matches!(
        commit(&world.keys, vec![Change::BindParties { at, parties: Vec::new(), wrapped: false }]),
        Err(CommitError::Gone)
    ));
}

#[test]
fn who_is_released_does_not_take_the_recording_along() {
    let world = world(2);
    let at = world.bound(true);
    let bind = Change::BindParties { at, parties: world.parties[1..].to_vec(), wrapped: true };
    commit(&world.keys, vec![bind]).expect("binds");
    world.erase_subscriber(world.parties[0]);
    assert!(!world.is_dead(at));
    assert!(sweep_all(&world.keys, 9).is_empty(), "the sweeper was handed a living object");
    commit(&world.keys, vec![Change::BindParties { at, parties: world.parties[1..].to_vec(), wrapped: false }])
        .expect("binds");
    world.erase_subscriber(world.parties[1]);
    assert!(!world.is_dead(at));
    world.check(HashSet::new());
}

#[test]
fn what_is_bound_without_being_wrapped_dies_with_its_owner_only() {
    let world = world(2);
    let at = world.bound(false);
    assert_eq!(world.keys.entry(at).expect("reads").expect("there").parties.len(), 2);
    assert!(world.keys.bound(world.tenant, world.parties[0]).expect("reads").is_empty());
    world.erase_subscriber(world.parties[0]);
    assert!(!world.is_dead(at));
    world.child(at);
    world.erase_subscriber(world.owner);
    assert!(world.is_dead(at));
}

#[test]
fn the_cost_of_erasing_somebody_who_is_bound_is_that_of_the_own_path() {
    let cost = |recordings: usize| {
        let world = world(2);
        for _ in 0..recordings {
            world.bound(true);
        }
        // Folded, so that both worlds have the same pages above.
        world.erase_subscriber(world.parties[1]);
        world.erase_subscriber(world.parties[0]);
        world.disk.last_batch()
    };
    assert_eq!(cost(1), cost(60), "rows of the erasure");
}

#[test]
fn the_sweeper_finds_what_a_fallen_party_was_bound_to() {
    let world = world(1);
    let at = world.bound(true);
    let later = ObjectId(random());
    commit(&world.keys, vec![Change::AddObject { at, object: later }]).expect("adds");
    let leaf = world.keys.audio_leaf(at).expect("reads").expect("lives");
    let doomed = leaf.objects[0];
    commit(&world.keys, vec![Change::DoomObject { at, object: doomed }]).expect("dooms");
    assert_eq!(sweep_all(&world.keys, 9), [doomed]);
    let name = |kind| ValueName { row: leaf.row, kind, suffix: Vec::new() };
    let puts = vec![
        value(Owner::Audio(at), name(Kind::Audio), &leaf.audio.expect("lives")),
        Change::QueueCopy { object: later, to: "eu-west-1".to_owned() },
    ];
    commit(&world.keys, puts).expect("puts");
    let survivor = add_recording(&world.keys, world.tenant, world.owner);
    world.erase_subscriber(world.parties[0]);
    let object = ObjectId(random());
    assert!(matches!(commit(&world.keys, vec![Change::AddObject { at, object }]), Err(CommitError::Gone)));
    assert!(matches!(
        commit(&world.keys, vec![value(Owner::Audio(at), name(Kind::Slice), &Secret::random())]),
        Err(CommitError::Gone)
    ));
    assert_eq!(sweep_all(&world.keys, 9), [later]);
    assert_eq!(world.keys.copies_count(), 0);
    assert!(world.keys.value(&name(Kind::Audio)).expect("reads").is_none());
    assert!(!world.is_dead(survivor));
    // What is left of the dead one goes when it is erased by name.
    assert!(world.keys.entry(at).expect("reads").is_some());
    commit(&world.keys, vec![Change::EraseRecording { at, parts: Parts::BOTH }]).expect("erases");
    assert!(world.keys.entry(at).expect("reads").is_none());
}

#[test]
fn erasing_a_bound_recording_takes_it_off_everybody() {
    let world = world(2);
    let (first, second) = (world.bound(true), world.bound(true));
    commit(&world.keys, vec![Change::EraseRecording { at: first, parts: Parts::AUDIO }]).expect("erases");
    assert_eq!(sweep_all(&world.keys, 9).len(), 1);
    commit(&world.keys, vec![Change::EraseRecording { at: second, parts: Parts::BOTH }]).expect("erases");
    assert_eq!(world.keys.bound(world.tenant, world.parties[0]).expect("reads"), [first]);
    assert_eq!(sweep_all(&world.keys, 9).len(), 1);
    let facts = world.keys.facts_leaf(first).expect("reads").expect("lives");
    assert!(facts.facts.is_some() && !facts.audio_present);
    // Their pages lead to nothing that was erased before.
    world.erase_subscriber(world.parties[0]);
    assert!(sweep_all(&world.keys, 9).is_empty());
    assert!(world.is_dead(first));
}

#[test]
fn the_owner_and_repetitions_are_no_parties() {
    let world = world(1);
    let (at, mut change) = new_recording(world.tenant, world.owner, 0);
    if let Change::AddRecording { parties, wrapped, .. } = &mut change {
        (*parties, *wrapped) = (vec![world.owner, world.owner], true);
    }
    commit(&world.keys, vec![change]).expect("a call with oneself");
    let entry = world.keys.entry(at).expect("reads").expect("there");
    assert!(entry.parties.is_empty() && !entry.wrapped);
    let bind = |parties| commit(&world.keys, vec![Change::BindParties { at, parties, wrapped: true }]);
    bind(vec![world.parties[0], world.owner, world.parties[0]]).expect("binds");
    assert_eq!(world.keys.entry(at).expect("reads").expect("there").parties, world.parties);
    assert!(matches!(bind(vec![SubscriberHandle(random())]), Err(CommitError::Gone)));
    let many: Vec<_> =
        (0..=MAX_PARTIES).map(|number| add_subscriber(&world.keys, world.tenant, &format!("p{number}"))).collect();
    assert!(matches!(bind(many), Err(CommitError::Malformed(_))));
}

#[test]
fn what_was_made_from_a_recording_falls_with_its_audio() {
    let world = world(0);
    let parent = add_recording(&world.keys, world.tenant, world.owner);
    let (first, second) = (world.child(parent), world.child(parent));
    let bystander = add_recording(&world.keys, world.tenant, world.owner);
    let entry = |at| world.keys.entry(at).expect("reads");
    assert_eq!(entry(parent).expect("there").children, [first.recording, second.recording]);
    assert_eq!(entry(first).expect("there").parent, Some(parent.recording));
    let refused = |change| matches!(commit(&world.keys, vec![change]), Err(CommitError::Malformed(_)));
    assert!(refused(child_of(first).1), "no grandchildren");
    assert!(refused(Change::BindParties { at: first, parties: Vec::new(), wrapped: false }));

    commit(&world.keys, vec![Change::EraseRecording { at: first, parts: Parts::BOTH }]).expect("erases");
    assert_eq!(entry(parent).expect("there").children, [second.recording]);
    commit(&world.keys, vec![Change::EraseRecording { at: parent, parts: Parts::FACTS }]).expect("erases");
    assert!(!world.is_dead(second));
    let secrets = world.secrets(second);
    commit(&world.keys, vec![Change::EraseRecording { at: parent, parts: Parts::AUDIO }]).expect("erases");
    assert!(entry(parent).is_none() && entry(second).is_none() && !world.is_dead(bystander));
    world.check(secrets);
    assert_eq!(sweep_all(&world.keys, 9).len(), 3, "each had an object");
    assert!(matches!(commit(&world.keys, vec![child_of(parent).1]), Err(CommitError::Gone)));
}

#[test]
fn a_child_needs_a_parent_whose_audio_lives_and_room_below_it() {
    let world = world(1);
    let parent = add_recording(&world.keys, world.tenant, world.owner);
    let mut change = child_of(parent).1;
    if let Change::AddRecording { parties, .. } = &mut change {
        parties.clone_from(&world.parties);
    }
    assert!(matches!(commit(&world.keys, vec![change]), Err(CommitError::Malformed(_))), "it has its parent's");
    let stranger = RecordingPath { subscriber: world.parties[0], ..parent };
    assert!(matches!(commit(&world.keys, vec![child_of(stranger).1]), Err(CommitError::Gone)));
    let children = (0..MAX_CHILDREN).map(|_| child_of(parent).1).collect();
    commit(&world.keys, children).expect("as many as there may be");
    assert!(matches!(commit(&world.keys, vec![child_of(parent).1]), Err(CommitError::Malformed(_))));
    commit(&world.keys, vec![Change::EraseRecording { at: parent, parts: Parts::AUDIO }]).expect("erases");
    assert!(matches!(commit(&world.keys, vec![child_of(parent).1]), Err(CommitError::Gone)));
}

#[test]
fn facts_that_are_renewed_are_forgotten_as_they_were() {
    for parties in [0, 2] {
        let world = world(parties);
        let at = world.bound(true);
        let leaf = world.keys.facts_leaf(at).expect("reads").expect("lives");
        let (row, old) = (leaf.row, leaf.facts.expect("lives"));
        let audio = world.keys.audio_leaf(at).expect("reads").expect("lives").audio.expect("lives");
        let facts_name = ValueName { row, kind: Kind::Facts, suffix: Vec::new() };
        let reference = |owner| ValueName::log_ref(owner, row);
        commit(
            &world.keys,
            vec![
                value(Owner::Facts(at), facts_name.clone(), &old),
                value(Owner::Facts(at), reference(Owner::Facts(at)), &old),
                value(Owner::Audio(at), reference(Owner::Audio(at)), &audio),
            ],
        )
        .expect("puts");
        let new = Secret::random();
        let (kept, renew) = (reference(Owner::Facts(at)), Change::RenewFacts { at, facts: new.duplicate() });
        let changes = vec![
            // This one lies under the secret of before, so it goes with it.
            value(Owner::Facts(at), reference(Owner::Facts(at)), &old),
            renew,
            value(Owner::Facts(at), facts_name.clone(), &new),
            value(Owner::Facts(at), kept.clone(), &new),
        ];
        assert!(commit(&world.keys, changes).expect("renews").erased);
        let found = world.keys.facts_leaf(at).expect("reads").expect("lives").facts.expect("lives");
        assert_eq!(found.expose(), new.expose());
        assert!(world.keys.value(&facts_name).expect("reads").is_some());
        let references = world.keys.values(row, Kind::LogRef).expect("reads");
        assert_eq!(references.len(), 2, "the new one, and the audio's");
        assert!(references.iter().any(|(suffix, _)| *suffix == kept.suffix));
        world.check(HashSet::from([*old.expose()]));
        commit(&world.keys, vec![Change::EraseRecording { at, parts: Parts::FACTS }]).expect("erases");
        let renew = Change::RenewFacts { at, facts: Secret::random() };
        assert!(matches!(commit(&world.keys, vec![renew]), Err(CommitError::Gone)));
    }
}

#[test]
fn references_to_the_log_go_with_their_leaf() {
    let world = world(0);
    let at = add_recording(&world.keys, world.tenant, world.owner);
    let (audio, facts) = (
        world.keys.audio_leaf(at).expect("reads").expect("lives"),
        world.keys.facts_leaf(at).expect("reads").expect("lives").facts.expect("lives"),
    );
    let (row, audio) = (audio.row, audio.audio.expect("lives"));
    let of = |owner| ValueName::log_ref(owner, row);
    let kept = of(Owner::Facts(at));
    let puts =
        vec![value(Owner::Audio(at), of(Owner::Audio(at)), &audio), value(Owner::Facts(at), kept.clone(), &facts)];
    commit(&world.keys, puts).expect("puts");
    let wrong = value(Owner::Facts(at), of(Owner::Audio(at)), &facts);
    assert!(matches!(commit(&world.keys, vec![wrong]), Err(CommitError::Malformed(_))));
    commit(&world.keys, vec![Change::EraseRecording { at, parts: Parts::AUDIO }]).expect("erases");
    sweep_all(&world.keys, 9);
    let left = world.keys.values(row, Kind::LogRef).expect("reads");
    assert_eq!(left.into_iter().map(|(suffix, _)| suffix).collect::<Vec<_>>(), [kept.suffix]);
}

#[test]
fn an_ordinary_create_and_its_end_write_the_page_of_the_recording_alone() {
    let disk = Disk::new();
    // Room for all of it beside the page.
    let limits = plan::Limits { appends: 16, ..plan::Limits::default() };
    let keys = open_with(&disk, limits).expect("opens");
    let tenant = add_tenant(&keys, "acme");
    let subscriber = add_subscriber(&keys, tenant, "ada");
    let due = |minute| Keeping { audio_due: Minute(minute), ended: Minute(1), ..Keeping::default() };
    let create = |keeping: Keeping| {
        let (at, mut change) = new_recording(tenant, subscriber, 1);
        if let Change::AddRecording { keeping: own, .. } = &mut change {
            *own = keeping;
        }
        commit(&keys, vec![change]).expect("creates");
        (at, disk.last_batch())
    };
    // One row of the page, number and chain.
    assert_eq!(create(Keeping::default()).1, 3);
    // The first that is due lowers what is said of its page, up to the top.
    let (first, rows) = create(due(100));
    assert_eq!(rows, 2 + 3);
    assert_eq!(create(due(100)).1, 3);
    let (at, rows) = create(due(101));
    assert_eq!(rows, 3);
    commit(&keys, vec![Change::SetKeeping { at, keeping: due(200) }]).expect("sets");
    assert_eq!((disk.last_batch(), keys.generation()), (3, 1), "no rotation");
    check_found(&keys, &Model::of(&keys));
    // An erasure brings what is said up to date on its way.
    commit(&keys, vec![Change::EraseRecording { at: first, parts: Parts::BOTH }]).expect("erases");
    check_found(&keys, &Model::of(&keys));
}

#[test]
fn what_is_restricted_is_not_due_until_it_is_not() {
    let world = world(0);
    let at = add_recording(&world.keys, world.tenant, world.owner);
    let set = |restricted| {
        let keeping = Keeping { audio_due: Minute(5), restricted, ..Keeping::default() };
        commit(&world.keys, vec![Change::SetKeeping { at, keeping }]).expect("sets");
        world.keys.due(Minute(5), 9, &PassedOver::new(), None).expect("reads").len()
    };
    assert_eq!((set(false), set(true), set(false)), (1, 0, 1));
    assert!(world.keys.due(Minute(4), 9, &PassedOver::new(), None).expect("reads").is_empty(), "never early");
    commit(&world.keys, vec![Change::EraseRecording { at, parts: Parts::AUDIO }]).expect("erases");
    assert_eq!(world.keys.next_due(None).expect("reads"), Minute::NEVER, "the facts are never due");
}
