//! The token: wrapping keys are made, used and destroyed in it, through the PKCS#11 module of its maker.
//!
//! A wrapping key is an AES-256 key that the token draws and never gives out (sensitive, not extractable), labelled with the
//! slot's id and named by a random id: neither tells anything. It seals once.
//!
//! **The PIN.** Tokens lock after a few wrong ones, and whoever can then unlock them may not be the one who is awake. So a PIN
//! that was refused is never tried again by this process; and a token that counts a failed login since its last good one is
//! not tried at all, so that restarts do not use up what is left. The PIN is asked for when a session is opened: at the start,
//! and when the token was away.
//!
//! **Sessions** end when a token is pulled out, restarts or is out of reach. What fails because of that is tried once more in a
//! new session; everything here may be done twice.
//!
//! A module stays loaded for the life of the process: PKCS#11 wants to be initialised once, and modules do not like being
//! unloaded.

use super::{KeyId, SlotId, blob::NONCE};
use crate::crypto::secret::Secret;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, MechanismType, aead::GcmParams},
    object::{Attribute, AttributeType, ObjectClass},
    session::{Session, UserType},
    slot,
    types::AuthPin,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use zeroize::Zeroizing;

/// Why a token did not do it. Fields in backticks are those of the configuration.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// There is no module, or it is none.
    #[error("`slot.module` {path} cannot be used: {why}; name the PKCS#11 module of the token's maker", path = .path.display())]
    Module {
        /// Which.
        path: PathBuf,
        /// The loader's words.
        why: String,
    },
    /// The token is not there.
    #[error("no token with the label {0:?} is there: attach it, or correct `slot.token`")]
    Away(String),
    /// More than one token has the label.
    #[error("more than one token has the label {0:?}: a label must name one token (`slot.token`)")]
    Ambiguous(String),
    /// The token cannot do what is needed.
    #[error("the token lacks {0}: `slot.token` must name one that makes AES keys and seals with AES-GCM")]
    Unfit(&'static str),
    /// The PIN was refused.
    #[error(
        "the token refused the PIN and is not asked again, because tokens lock: correct `slot.pin_file`, log in once by \
         hand, start again"
    )]
    PinWrong,
    /// Somebody entered a wrong PIN since the last good one.
    #[error(
        "the token counts a failed login since the last good one, and is not asked before it locks: see that \
         `slot.pin_file` is right, log in once by hand, start again"
    )]
    PinUncertain,
    /// Too many wrong PINs.
    #[error("the token has locked its PIN: its security officer must set a new one (`slot.pin_file`)")]
    PinLocked,
    /// A wrapping key is not there.
    #[error("the token does not hold this wrapping key")]
    NoKey,
    /// Anything else.
    #[error("the token failed: {0}")]
    Failed(String),
}

/// Makes, uses and destroys wrapping keys. What it says is done is durable. A seam, so that tests can fail between steps.
pub trait Token: Send {
    /// The wrapping keys of a slot.
    fn keys(&mut self, slot: SlotId) -> Result<Vec<KeyId>, TokenError>;
    /// Makes a wrapping key and seals 32 bytes under it.
    fn seal(
        &mut self,
        slot: SlotId,
        key: KeyId,
        nonce: &[u8; NONCE],
        associated: &[u8],
        root: &Secret,
    ) -> Result<Vec<u8>, TokenError>;
    /// Opens what was sealed.
    fn open(
        &mut self,
        slot: SlotId,
        key: KeyId,
        nonce: &[u8; NONCE],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Secret, TokenError>;
    /// Destroys a wrapping key; no error when it is not there.
    fn destroy(&mut self, slot: SlotId, key: KeyId) -> Result<(), TokenError>;
}

/// A token behind a PKCS#11 module.
pub struct ModuleToken {
    module: Pkcs11,
    label: String,
    pin: AuthPin,
    session: Option<Session>,
    pin_refused: bool,
}

impl ModuleToken {
    /// Loads the module. The token itself is first asked when it is needed.
    pub fn load(module: &Path, label: &str, pin: Zeroizing<String>) -> Result<Self, TokenError> {
        let pin = AuthPin::from(pin.as_str());
        Ok(Self { module: loaded(module)?, label: label.to_owned(), pin, session: None, pin_refused: false })
    }

    /// Opens a session and logs in, once.
    fn log_in(&mut self) -> Result<Session, TokenError> {
        if self.pin_refused {
            return Err(TokenError::PinWrong);
        }
        let (slot, info) = self.find()?;
        if info.user_pin_locked() {
            return Err(TokenError::PinLocked);
        }
        if info.user_pin_count_low() || info.user_pin_final_try() {
            return Err(TokenError::PinUncertain);
        }
        let mechanisms = self.module.get_mechanism_list(slot).map_err(failed)?;
        for (wanted, name) in [(MechanismType::AES_KEY_GEN, "CKM_AES_KEY_GEN"), (MechanismType::AES_GCM, "CKM_AES_GCM")]
        {
            if !mechanisms.contains(&wanted) {
                return Err(TokenError::Unfit(name));
            }
        }
        let session = self.module.open_rw_session(slot).map_err(failed)?;
        match session.login(UserType::User, Some(&self.pin)) {
            // Another slot of this process is logged in: PKCS#11 knows one login for all sessions with a token.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
                self.pin_refused = true;
                Err(TokenError::PinWrong)
            }
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::PinLocked),
            Err(error) => Err(failed(error)),
        }
    }

    fn find(&self) -> Result<(slot::Slot, slot::TokenInfo), TokenError> {
        let slots = self.module.get_slots_with_token().map_err(failed)?;
        // A slot whose token went between the two calls has none.
        let with_info = slots.into_iter().filter_map(|slot| Some((slot, self.module.get_token_info(slot).ok()?)));
        let mut named = with_info.filter(|(_, info)| info.token_initialized() && info.label() == self.label);
        let found = named.next().ok_or_else(|| TokenError::Away(self.label.clone()))?;
        if named.next().is_some() { Err(TokenError::Ambiguous(self.label.clone())) } else { Ok(found) }
    }

    /// Does something in a session; once more in a new one when the session turns out to be gone.
    fn within<T>(&mut self, act: impl Fn(&Session) -> cryptoki::error::Result<T>) -> Result<T, TokenError> {
        if let Some(session) = self.session.take() {
            match act(&session) {
                Ok(done) => {
                    self.session = Some(session);
                    return Ok(done);
                }
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let session = self.log_in()?;
        let done = act(&session).map_err(failed)?;
        self.session = Some(session);
        Ok(done)
    }
}

impl Token for ModuleToken {
    fn keys(&mut self, slot: SlotId) -> Result<Vec<KeyId>, TokenError> {
        self.within(|session| {
            let mut ids = Vec::new();
            for key in session.find_objects(&of_slot(slot))? {
                for attribute in session.get_attributes(key, &[AttributeType::Id])? {
                    if let Attribute::Id(id) = attribute {
                        ids.extend(id.try_into().ok().map(KeyId));
                    }
                }
            }
            Ok(ids)
        })
    }

    fn seal(
        &mut self,
        slot: SlotId,
        key: KeyId,
        nonce: &[u8; NONCE],
        associated: &[u8],
        root: &Secret,
    ) -> Result<Vec<u8>, TokenError> {
        let mut template = named(slot, key);
        template.extend([
            Attribute::ValueLen(32.into()),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Derive(false),
        ]);
        self.within(|session| session.generate_key(&Mechanism::AesKeyGen, &template))?;
        // A session that was lost after it had made the key may have made two; whichever seals is found by `open`.
        self.within(|session| match session.find_objects(&named(slot, key))?.first() {
            Some(key) => with_gcm(nonce, associated, |gcm| session.encrypt(gcm, *key, root.expose())).map(Some),
            None => Ok(None),
        })?
        .ok_or(TokenError::NoKey)
    }

    fn open(
        &mut self,
        slot: SlotId,
        key: KeyId,
        nonce: &[u8; NONCE],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Secret, TokenError> {
        let opened = self.within(|session| {
            let keys = session.find_objects(&named(slot, key))?;
            let mut result = Ok(None);
            for key in keys {
                let opened = with_gcm(nonce, associated, |gcm| session.decrypt(gcm, key, sealed));
                result = opened.map(Zeroizing::new).map(Some);
                if result.is_ok() {
                    break;
                }
            }
            result
        })?;
        let opened = opened.ok_or(TokenError::NoKey)?;
        let root = opened.as_slice().try_into().map_err(|_| TokenError::Failed("it opened no root".to_owned()))?;
        Ok(Secret::from_bytes(root))
    }

    fn destroy(&mut self, slot: SlotId, key: KeyId) -> Result<(), TokenError> {
        self.within(|session| {
            for key in session.find_objects(&named(slot, key))? {
                match session.destroy_object(key) {
                    // Gone since it was found.
                    Ok(()) | Err(Error::Pkcs11(RvError::ObjectHandleInvalid, _)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }
}

/// Modules that are loaded, by path.
static LOADED: Mutex<Vec<(PathBuf, Pkcs11)>> = Mutex::new(Vec::new());

fn loaded(path: &Path) -> Result<Pkcs11, TokenError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, module)) = loaded.iter().find(|(of, _)| of == path) {
        return Ok(module.clone());
    }
    let unusable = |error: Error| TokenError::Module { path: path.to_owned(), why: error.to_string() };
    let module = Pkcs11::new(path).map_err(unusable)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Under another path, perhaps.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(unusable(error)),
    }
    loaded.push((path.to_owned(), module.clone()));
    Ok(module)
}

fn of_slot(slot: SlotId) -> Vec<Attribute> {
    let label = format!("quietus {}", data_encoding::HEXLOWER.encode(&slot.0));
    vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Token(true), Attribute::Label(label.into_bytes())]
}

fn named(slot: SlotId, key: KeyId) -> Vec<Attribute> {
    let mut template = of_slot(slot);
    template.push(Attribute::Id(key.0.to_vec()));
    template
}

fn with_gcm<T>(
    nonce: &[u8; NONCE],
    associated: &[u8],
    act: impl FnOnce(&Mechanism) -> cryptoki::error::Result<T>,
) -> cryptoki::error::Result<T> {
    let mut nonce = *nonce;
    act(&Mechanism::AesGcm(GcmParams::new(&mut nonce, associated, 128.into())?))
}

fn is_lost(error: &Error) -> bool {
    let Error::Pkcs11(error, _) = error else { return false };
    matches!(
        error,
        RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::UserNotLoggedIn
            | RvError::DeviceRemoved
            | RvError::DeviceError
            | RvError::TokenNotPresent
    )
}

fn failed(error: Error) -> TokenError {
    TokenError::Failed(error.to_string())
}

/// One that is kept by whoever opens its slots anew: it finds its token by itself, and knows that a PIN was refused.
impl Token for Arc<Mutex<ModuleToken>> {
    fn keys(&mut self, slot: SlotId) -> Result<Vec<KeyId>, TokenError> {
        kept(self).keys(slot)
    }

    fn seal(
        &mut self,
        slot: SlotId,
        key: KeyId,
        nonce: &[u8; NONCE],
        associated: &[u8],
        root: &Secret,
    ) -> Result<Vec<u8>, TokenError> {
        kept(self).seal(slot, key, nonce, associated, root)
    }

    fn open(
        &mut self,
        slot: SlotId,
        key: KeyId,
        nonce: &[u8; NONCE],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Secret, TokenError> {
        kept(self).open(slot, key, nonce, associated, sealed)
    }

    fn destroy(&mut self, slot: SlotId, key: KeyId) -> Result<(), TokenError> {
        kept(self).destroy(slot, key)
    }
}

fn kept(token: &Mutex<ModuleToken>) -> MutexGuard<'_, ModuleToken> {
    token.lock().unwrap_or_else(PoisonError::into_inner)
}
