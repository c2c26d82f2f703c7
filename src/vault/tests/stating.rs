//! What cannot be made to happen from outside about the statements of a receipt: an erasure that stays sealed for a while.

use super::*;
use crate::{
    audit::{
        receipt::{About, Parts, State, commitment, tenant_scope},
        verify,
    },
    domain::id::ReceiptId,
    keys::{Change, Mutation},
    proto::stored,
    vault::receipt::Receipt,
};
use prost::Message as _;

/// The state that the receipt's file states, as whoever has the gateway's key and the opening reads it.
fn stated(house: &House, id: ReceiptId, opening: [u8; 32], scope: &str) -> (State, (u64, u64), u64) {
    let Receipt { text, .. } = house.vault.receipt(id).expect("there");
    let key = house.vault.0.log.key.verifier();
    let verified = verify::verify(&text.expect("stated"), key, Some((&opening, scope))).expect("it holds");
    (verified.statement.state, verified.statement.generations, verified.index)
}

#[test]
fn a_sealed_erasure_has_a_statement_that_the_destroyed_one_takes_the_place_of() {
    run(async |house| {
        let inner = house.vault.0.clone();
        // Whether it was ever there makes no difference to a receipt.
        let (opening, scope) = ([7; 32], tenant_scope("nobody"));
        let draw_up = || inner.new_receipt(About::Tenant, Parts::Everything, &[commitment(&opening, &scope)], 1000);
        let ((id, mut row), (at_start, unstated)) = (draw_up(), draw_up());
        let rows = [(id, &row), (at_start, &unstated)];
        let rows = rows.map(|(id, row)| Change::PutReceipt { id, body: row.encode_to_vec() });
        inner.keys.commit(Mutation::new(rows.into())).await.expect("commits");
        assert_eq!(house.vault.receipt(id).expect("there").text, None, "nothing is stated yet");

        let file = inner.state_sealed(id, &mut row, (1, 2)).await.expect("states");
        assert_eq!(Some(&file), house.vault.receipt(id).expect("there").text.as_ref());
        let (state, generations, sealed_at) = stated(&house, id, opening, &scope);
        assert_eq!((state, generations), (State::Sealed, (1, 2)));
        assert!(!house.vault.receipt(id).expect("there").stated, "it is not destroyed");
        let kept = stored::Receipt::decode(&*inner.keys.receipt(id).expect("reads").expect("there")).expect("a row");
        assert!(kept == row, "the row has what a start goes on with");

        inner.state_destroyed(id, row, true, Some((1, 2))).await.expect("states");
        let (state, generations, destroyed_at) = stated(&house, id, opening, &scope);
        assert_eq!((state, generations), (State::Destroyed, (1, 2)));
        assert!(sealed_at < destroyed_at && house.vault.receipt(id).expect("there").stated);

        // A stop came before the first was stated: the start does it, once.
        for _ in 0..2 {
            inner.settle_sealed(at_start).await.expect("states");
        }
        assert_eq!(stated(&house, at_start, opening, &scope), (State::Sealed, (1, 1), destroyed_at + 1));
        house.vault.drain().await;
    });
}
