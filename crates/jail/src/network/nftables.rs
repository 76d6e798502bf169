//! Messages about the tables of nftables: elements of sets, the chain of an allow-list, and the table
//! of a jail's own.
//! `linux/netfilter/nf_tables.h`; `nft --debug=netlink` prints what a rule is made of.

mod expression;

use std::net::Ipv4Addr;

pub(super) use expression::Expression;

use super::message::{APPEND, CREATE, Message};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const DELETE_CHAIN: u16 = SUBSYSTEM << 8 | 5;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const DELETE_SET: u16 = SUBSYSTEM << 8 | 11;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const FAMILY_INET: u8 = 1;

const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
/// `NF_INET_LOCAL_IN` and `NF_INET_LOCAL_OUT`.
const HOOK_INPUT: u32 = 1;
const HOOK_OUTPUT: u32 = 3;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_DESCRIPTION: u16 = 9;
const SET_ID: u16 = 10;
const SET_SIZE: u16 = 1;
const SET_HAS_TIMEOUTS: u32 = 0x10;
const ELEMENTS: u16 = 3;
const ITEM: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPRESSION: u16 = 7;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_PACKETS: u16 = 2;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const GOTO: i32 = -4;

/// Bytes of a link's name as a key of a set.
const LINK_NAME_BYTES: usize = 16;

/// Elements in one attribute at most, whose length has 16 bits; each takes some fifty bytes.
const ELEMENTS_PER_MESSAGE: usize = 1024;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on its way.
    Accept,
    /// It goes nowhere, and nobody is told.
    Drop,
    /// This chain decides.
    Goto(String),
}

/// What a set holds under a key.
#[derive(Debug, Clone, Default)]
pub(super) struct Element {
    key: Vec<u8>,
    verdict: Option<Verdict>,
    value: Option<Vec<u8>>,
    milliseconds: Option<u64>,
}

impl Element {
    /// An element named by bytes.
    pub(super) fn of(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), ..Self::default() }
    }

    /// An element named by a network link.
    pub(super) fn of_link(name: &str) -> Self {
        let mut key = name.as_bytes().to_vec();
        key.resize(LINK_NAME_BYTES, 0);
        Self::of(key)
    }

    pub(super) fn with_verdict(self, verdict: Verdict) -> Self {
        Self { verdict: Some(verdict), ..self }
    }

    pub(super) fn with_address(self, address: Ipv4Addr) -> Self {
        Self { value: Some(address.octets().into()), ..self }
    }

    /// It goes by itself after this time.
    pub(super) fn lasting(self, seconds: u32) -> Self {
        Self { milliseconds: Some(u64::from(seconds) * 1000), ..self }
    }

    fn put(&self, message: &mut Message) {
        message.nested(ITEM, |element| {
            element.nested(ELEMENT_KEY, |key| key.attribute(VALUE, &self.key));
            if let Some(verdict) = &self.verdict {
                element.nested(ELEMENT_DATA, |data| verdict.put(data));
            }
            if let Some(value) = &self.value {
                element.nested(ELEMENT_DATA, |data| data.attribute(VALUE, value));
            }
            if let Some(milliseconds) = self.milliseconds {
                element.attribute(ELEMENT_TIMEOUT, milliseconds.to_be_bytes());
            }
        });
    }
}

impl Verdict {
    fn put(&self, message: &mut Message) {
        message.nested(VERDICT, |verdict| match self {
            Self::Accept => verdict.attribute(VERDICT_CODE, ACCEPT.to_be_bytes()),
            Self::Drop => verdict.attribute(VERDICT_CODE, DROP.to_be_bytes()),
            Self::Goto(chain) => {
                verdict.attribute(VERDICT_CODE, GOTO.to_be_bytes());
                verdict.text(VERDICT_CHAIN, chain);
            }
        });
    }
}

/// One table. Its changes are collected and made in one transaction: all or none.
#[derive(Debug, Clone)]
pub(super) struct Table(pub(super) String);

/// Changes of one table.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    table: &'a Table,
    messages: Vec<Message>,
    /// A set that a rule of the same transaction names needs a number.
    sets: u32,
}

impl Table {
    fn message(&self, kind: u16, flags: u16) -> Message {
        let mut message = Message::new(kind, flags);
        // struct nfgenmsg: family, version, resource
        message.put([FAMILY_INET, 0, 0, 0]);
        message.text(TABLE, &self.0);
        message
    }

    /// Asks whether there is this chain.
    pub(super) fn get_chain(&self, name: &str) -> Message {
        let mut message = self.message(GET_CHAIN, 0);
        message.text(CHAIN_NAME, name);
        message.finish()
    }

    /// Asks for all rules of all its chains.
    pub(super) fn list_rules(&self) -> Message {
        self.message(GET_RULE, super::message::DUMP).finish()
    }

    /// Asks for one element of a set.
    pub(super) fn get_element(&self, set: &str, element: &Element) -> Message {
        elements(self.message(GET_ELEMENT, 0), set, std::slice::from_ref(element))
    }

    /// Asks for all elements of a set.
    pub(super) fn list_elements(&self, set: &str) -> Message {
        let mut message = self.message(GET_ELEMENT, super::message::DUMP);
        message.text(SET_NAME, set);
        message.finish()
    }

    /// Begins a transaction.
    pub(super) fn changes(&self) -> Changes<'_> {
        Changes { table: self, messages: vec![mark(BATCH_BEGIN)], sets: 0 }
    }
}

impl Changes<'_> {
    /// The transaction, and how many answers it gets.
    pub(super) fn finish(mut self) -> (Vec<Message>, usize) {
        self.messages.push(mark(BATCH_END));
        let answers = self.messages.len() - 2;
        (self.messages, answers)
    }

    /// Adds elements, which must not be there with another value.
    pub(super) fn add(&mut self, set: &str, all: &[Element]) {
        for some in all.chunks(ELEMENTS_PER_MESSAGE) {
            self.messages.push(elements(self.table.message(NEW_ELEMENT, CREATE), set, some));
        }
    }

    /// Removes elements, which must be there.
    pub(super) fn remove(&mut self, set: &str, all: &[Element]) {
        for some in all.chunks(ELEMENTS_PER_MESSAGE) {
            self.messages.push(elements(self.table.message(DELETE_ELEMENT, 0), set, some));
        }
    }

    /// Adds elements, or gives those that are there a new lifetime: older kernels than 6.12 keep the
    /// lifetime of an element that is added again, and none removes one that is not there.
    pub(super) fn renew(&mut self, set: &str, all: &[Element]) {
        self.add(set, all);
        self.remove(set, all);
        self.add(set, all);
    }

    /// Adds a set of `size` elements whose keys have `key_bytes`; each has a lifetime. `key_type` is
    /// for `nft` to print the keys.
    pub(super) fn add_set(&mut self, name: &str, (key_type, key_bytes): (u32, u32), size: u32) {
        self.sets += 1;
        let mut set = self.table.message(NEW_SET, CREATE);
        set.text(SET_NAME, name);
        set.attribute(SET_FLAGS, SET_HAS_TIMEOUTS.to_be_bytes());
        set.attribute(SET_KEY_TYPE, key_type.to_be_bytes());
        set.attribute(SET_KEY_LENGTH, key_bytes.to_be_bytes());
        set.attribute(SET_ID, self.sets.to_be_bytes());
        set.nested(SET_DESCRIPTION, |description| {
            description.attribute(SET_SIZE, size.to_be_bytes());
        });
        self.messages.push(set.finish());
    }

    /// Removes a set, which must be there and in no rule that stays.
    pub(super) fn remove_set(&mut self, name: &str) {
        let mut set = self.table.message(DELETE_SET, 0);
        set.text(SET_NAME, name);
        self.messages.push(set.finish());
    }

    /// Adds the table itself.
    pub(super) fn add_table(&mut self) {
        self.messages.push(self.table.message(NEW_TABLE, CREATE).finish());
    }

    /// Adds a chain that sees what comes in for this network namespace, and lets it.
    pub(super) fn add_input_chain(&mut self, name: &str) {
        self.add_base_chain(name, HOOK_INPUT);
    }

    /// The same with what it sends.
    pub(super) fn add_output_chain(&mut self, name: &str) {
        self.add_base_chain(name, HOOK_OUTPUT);
    }

    fn add_base_chain(&mut self, name: &str, number: u32) {
        let mut chain = self.table.message(NEW_CHAIN, CREATE);
        chain.text(CHAIN_NAME, name);
        chain.nested(CHAIN_HOOK, |hook| {
            hook.attribute(HOOK_NUMBER, number.to_be_bytes());
            hook.attribute(HOOK_PRIORITY, 0_u32.to_be_bytes());
        });
        chain.text(CHAIN_TYPE, "filter");
        self.messages.push(chain.finish());
    }

    /// Adds a chain.
    pub(super) fn add_chain(&mut self, name: &str) {
        let mut chain = self.table.message(NEW_CHAIN, CREATE);
        chain.text(CHAIN_NAME, name);
        self.messages.push(chain.finish());
    }

    /// Removes a chain with its rules. It must be there, and nothing may lead to it.
    pub(super) fn remove_chain(&mut self, name: &str) {
        let mut chain = self.table.message(DELETE_CHAIN, 0);
        chain.text(CHAIN_NAME, name);
        self.messages.push(chain.finish());
    }

    /// Adds a rule behind those that the chain has: `expressions` in turn, each of which lets the
    /// packet through to the next or to the next rule.
    pub(super) fn add_rule(&mut self, chain: &str, expressions: &[Expression]) {
        let mut rule = self.table.message(NEW_RULE, CREATE | APPEND);
        rule.text(RULE_CHAIN, chain);
        rule.nested(RULE_EXPRESSIONS, |list| {
            for expression in expressions {
                list.nested(ITEM, |item| expression.put(item));
            }
        });
        self.messages.push(rule.finish());
    }
}

fn mark(kind: u16) -> Message {
    let mut message = Message::mark(kind);
    message.put([0, 0]);
    message.put(SUBSYSTEM.to_be_bytes());
    message.finish()
}

fn elements(mut message: Message, set: &str, all: &[Element]) -> Message {
    message.text(SET_NAME, set);
    message.nested(ELEMENTS, |list| all.iter().for_each(|element| element.put(list)));
    message.finish()
}

/// What the kernel says of one element.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a>(&'a [u8]);

/// The chain of the rule in one message of an answer.
pub(super) fn chain_of_rule(body: &[u8]) -> Option<&str> {
    let attributes = body.get(4..).unwrap_or_default();
    str::from_utf8(super::message::find(attributes, RULE_CHAIN)?.strip_suffix(&[0])?).ok()
}

/// The elements in one message of an answer.
pub(super) fn found(body: &[u8]) -> impl Iterator<Item = Found<'_>> {
    // Behind the nfgenmsg.
    let attributes = body.get(4..).unwrap_or_default();
    let list = super::message::find(attributes, ELEMENTS).unwrap_or_default();
    super::message::each(list).map(Found)
}

impl Found<'_> {
    /// The link that names it.
    pub(super) fn link(&self) -> Option<&str> {
        let key = super::message::find_in(self.0, &[ELEMENT_KEY, VALUE])?;
        let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
        str::from_utf8(key.get(..end)?).ok()
    }

    pub(super) fn verdict(&self) -> Option<Verdict> {
        let verdict = super::message::find_in(self.0, &[ELEMENT_DATA, VERDICT])?;
        let code = super::message::find(verdict, VERDICT_CODE)?.first_chunk()?;
        match i32::from_be_bytes(*code) {
            ACCEPT => Some(Verdict::Accept),
            DROP => Some(Verdict::Drop),
            GOTO => {
                let chain = super::message::find(verdict, VERDICT_CHAIN)?.strip_suffix(&[0])?;
                Some(Verdict::Goto(str::from_utf8(chain).ok()?.to_owned()))
            }
            _ => None,
        }
    }

    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        let value = super::message::find_in(self.0, &[ELEMENT_DATA, VALUE])?;
        value.first_chunk::<4>().copied().map(Ipv4Addr::from)
    }

    /// Packets that its counter has seen.
    pub(super) fn packets(&self) -> Option<u64> {
        let path = [ELEMENT_EXPRESSION, EXPRESSION_DATA, COUNTER_PACKETS];
        let packets = super::message::find_in(self.0, &path)?;
        packets.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }
}
