//! What cannot be made to happen from outside about a live call whose stream breaks while frames of it are on their way, and
//! about what the journal still holds of a call that is complete.

use super::{basis::until, *};
use crate::{
    crypto::secret::Secret,
    domain::id::RowId,
    journal::{
        FrameKind,
        tests::{Control, controlled, settling},
    },
};
use std::{cell::Cell, sync::Arc};

/// Goes on over a journal whose disk the test controls.
async fn control_journal(house: &mut House) -> Arc<Control> {
    let disk = house.new_disk();
    copy_disk(&house.disk, &disk);
    let (journal, control) = controlled(&disk.join("journal"), JOURNAL);
    let vault = open_over(&disk, journal, house.objects.clone());
    house.go_on_with(vault, disk).await;
    control
}

/// Row and audio secret of a client's recording.
fn leaf(house: &House, client: u8) -> (RowId, Secret) {
    let inner = &house.vault.0;
    let path = inner.locate(&Scope::All, house.model[&client].id).expect("located").path;
    let leaf = inner.keys.audio_leaf(path).expect("reads").expect("lives");
    (leaf.row, leaf.audio.expect("lives"))
}

/// A live call of which so much is in a slice.
async fn store_the_first(house: &mut House, length: usize) {
    house.open(0, true).await;
    house.take(Step::Data { client: 0, length }).await;
    until_stored(house, length as u64).await;
}

async fn until_stored(house: &House, length: u64) {
    let mut progress = house.streams[&0].progress();
    progress.wait_for(|now| now.stored == length).await.expect("stored");
}

/// A frame that waits for the disk when its stream breaks is kept: whoever resumes is told so, and ends no call below it.
#[test]
fn a_resumed_call_goes_on_behind_every_frame_of_the_stream_before() {
    run(async |mut house| {
        let control = control_journal(&mut house).await;
        store_the_first(&mut house, 1000).await;
        let begun = control.syncs();
        control.hold(true);
        house.take(Step::Data { client: 0, length: 500 }).await;
        until(|| control.syncs() > begun).await;
        house.take(Step::Vanish { client: 0 }).await;

        let (row, _) = leaf(&house, 0);
        let journal = house.vault.0.journal.clone();
        let opened = Cell::new(false);
        let resume = async {
            house.open(0, true).await;
            opened.set(true);
        };
        let let_go = async {
            until(|| opened.get() || settling(&journal, row) > 0).await;
            control.hold(false);
        };
        tokio::join!(resume, let_go);
        assert_eq!(house.streams[&0].received(), 1500, "a frame of the stream before came late");
        house.take(Step::Finish { client: 0 }).await;
        assert_eq!(house.model[&0].kept, 1500);
        house.vault.drain().await;
    });
}

/// A frame that lay behind a gap: the disk was full for the one before it, or power took that one.
#[test]
fn what_was_acknowledged_takes_the_place_of_what_lay_behind_a_gap() {
    run(async |mut house| {
        store_the_first(&mut house, 1000).await;
        house.take(Step::Vanish { client: 0 }).await;
        let (row, audio) = leaf(&house, 0);
        let mut writer = house.vault.0.journal.call(row, &audio);
        writer.append(FrameKind::Audio, 1500, &[0; 700]).await.expect("durable");
        drop((writer, audio));

        house.open(0, true).await;
        assert_eq!(house.streams[&0].received(), 1000);
        house.take(Step::Data { client: 0, length: 500 }).await;
        // The slices end where the frame of before begins.
        until_stored(&house, 1500).await;
        house.take(Step::Play { client: 0 }).await;
        house.take(Step::Data { client: 0, length: 500 }).await;
        house.take(Step::Finish { client: 0 }).await;
        assert_eq!(house.model[&0].kept, 2000);
        house.vault.drain().await;
    });
}

/// Between the command that completes a recording and the word to the journal, which waits for the backup.
#[test]
fn a_complete_recording_is_its_slices_whatever_the_journal_holds() {
    run(async |mut house| {
        house.open(0, true).await;
        house.take(Step::Data { client: 0, length: 3000 }).await;
        house.take(Step::Finish { client: 0 }).await;
        until(|| house.vault.status().recordings_open == 0).await;
        let (row, audio) = leaf(&house, 0);
        let journal = house.vault.0.journal.clone();
        let mut writer = journal.call(row, &audio);
        for offset in [2000, 2500, 3000] {
            writer.append(FrameKind::Audio, offset, &[0; 700]).await.expect("durable");
        }
        drop((writer, audio));
        house.play(0).await;

        // A sender that lost the answer asks again: the journal hears what it was not told.
        house.open(0, true).await;
        assert_eq!(journal.frames(row), []);
        house.vault.drain().await;
    });
}
