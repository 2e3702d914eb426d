//! Invites: what the operator hands to whoever may register a node, once. The token is shown when it is made, and never
//! again.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::error::ApiError;
use super::super::fields;
use super::super::response::{self, Body};
use super::AdminContext;
use crate::coordinator::command::{Command, NewInvite};
use crate::coordinator::effect::Answer;
use crate::coordinator::event::{Environment, Question};
use crate::coordinator::invites::{INVITE_LIFE_MAX, Invite};
use crate::coordinator::standing::{Environments, Trust};
use crate::ids::{Digest, Namespace};
use crate::time::Span;
use crate::wire::hash::plain_hash;
use crate::wire::{Hash, InviteToken, JoinString, PublicKey};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 24;
/// Digits of an invite's name: the first of its token's digest.
const NAME_DIGITS: usize = 16;
/// How long an invite is good for unless the operator says otherwise.
const LIFE_DEFAULT: Span = Span::from_secs(24 * 3_600);

/// What agents need to find this box, and to know it when they see it.
pub struct Whereabouts {
    /// Where agents connect: a URL, unless the box can't know it.
    pub url: Option<String>,
    /// The box's own key.
    pub box_key: PublicKey,
    /// SHA-256 of the SubjectPublicKeyInfo of a certificate that the box made itself.
    pub tls: Option<Hash>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteBody {
    trust: Option<String>,
    environments: Option<Vec<String>>,
    /// The namespace whose account earns.
    account: Option<String>,
    region: Option<String>,
    ttl_s: Option<u64>,
    /// Where agents find the box, if not where it listens.
    url: Option<String>,
}

/// Makes an invite, and shows it: the only time that its token is shown.
pub(super) async fn create(context: &AdminContext, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let body: InviteBody = fields::parsed(body)?;
    let url = body.url.clone().or_else(|| context.whereabouts.url.clone());
    let token = new_token()?;
    let new = new_invite(body, &token)?;
    let digest = new.token;
    let join = JoinString {
        url: url.ok_or_else(url_unknown)?,
        box_key: context.whereabouts.box_key,
        tls: context.whereabouts.tls,
        token,
    };
    join.check().map_err(|error| ApiError::command_malformed("url", error.to_string()))?;
    let life = new.life;
    let Answer::Done = super::operate(context, Command::Invite(Box::new(new))).await? else {
        return Err(ApiError::unexpected());
    };
    let view = json!({"join": join.text(), "invite": name_of(digest), "expires_in_s": life.as_ms() / 1_000});
    Ok(response::json(view.to_string()))
}

/// The invites that are open.
pub(super) async fn list(context: &AdminContext) -> Result<Response<Body>, ApiError> {
    let invites: Vec<Value> = open(context).await?.iter().map(view).collect();
    Ok(response::json(json!({"invites": invites}).to_string()))
}

/// Lets an invite be good for nothing any more.
pub(super) async fn revoke(context: &AdminContext, name: &str) -> Result<Response<Body>, ApiError> {
    let invites = open(context).await?;
    let found = invites.iter().find(|invite| name_of(invite.token) == name);
    // One that isn't there is refused by the core, like one that was used just now.
    let token = found.map_or(Digest::default(), |invite| invite.token);
    let answer = super::operate(context, Command::RevokeInvite(token)).await?;
    super::shown(context, &answer)
}

async fn open(context: &AdminContext) -> Result<Vec<Invite>, ApiError> {
    match super::ask(context, Question::Invites).await? {
        Answer::Invites(invites) => Ok(invites),
        _ => Err(ApiError::unexpected()),
    }
}

fn new_invite(body: InviteBody, token: &InviteToken) -> Result<NewInvite, ApiError> {
    let InviteBody { trust, environments, account, region, ttl_s, url: _ } = body;
    let life = ttl_s.map_or(LIFE_DEFAULT, Span::from_secs);
    if life == Span::default() || life > INVITE_LIFE_MAX {
        let message = format!("`ttl_s` must be 1 to {} seconds.", INVITE_LIFE_MAX.as_ms() / 1_000);
        return Err(ApiError::command_malformed("ttl_s", message));
    }
    let region = region.map(|name| name.parse()).transpose();
    let region = region
        .map_err(|error: crate::ids::NameError| ApiError::command_malformed("region", error.to_string()))?;
    let account = account.map(|name| fields::name("account", &name).map(Namespace::named)).transpose()?;
    Ok(NewInvite {
        token: plain_hash(token.text().as_bytes()).into(),
        trust: trust.as_deref().map_or(Ok(Trust::Own), |word| fields::trust("trust", word))?,
        environments: worlds(environments)?,
        owner: account,
        region,
        life,
    })
}

fn worlds(words: Option<Vec<String>>) -> Result<Environments, ApiError> {
    let Some(words) = words else { return Ok(Environments::only(Environment::Mainnet)) };
    if words.is_empty() {
        let message = "`environments` must name mainnet, testnet or both.".to_owned();
        return Err(ApiError::command_malformed("environments", message));
    }
    words.iter().try_fold(Environments::NONE, |set, word| Ok(set.with(fields::environment(word)?)))
}

fn new_token() -> Result<InviteToken, ApiError> {
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    getrandom::fill(&mut *bytes).map_err(|_| ApiError::internal("The system gives no random bytes."))?;
    let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes));
    text.parse().map_err(|_| ApiError::unexpected())
}

fn name_of(token: Digest) -> String {
    let mut name = token.to_string();
    name.truncate(NAME_DIGITS);
    name
}

fn view(invite: &Invite) -> Value {
    let worlds = Environment::ALL.into_iter().filter(|world| invite.environments.contains(*world));
    json!({
        "invite": name_of(invite.token),
        "trust": invite.trust.word(),
        "environments": worlds.map(Environment::word).collect::<Vec<_>>(),
        "account": invite.owner.as_ref().map(ToString::to_string),
        "region": invite.region.as_ref().map(ToString::to_string),
        "made_at": super::views::seconds(invite.made_at),
        "expires_at": super::views::seconds(invite.expires_at),
    })
}

fn url_unknown() -> ApiError {
    let message = "The box listens on every address of its machine, and can't know under which one agents find it: say \
                   it as `url`, for example \"https://box.example\".";
    ApiError::command_malformed("url", message.to_owned())
}
