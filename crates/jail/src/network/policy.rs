//! What each jail may reach, as elements and chains of the node's table.
//!
//! Everything here is named by the jail's link, and so by its number, which is never given to
//! another jail: what is left of one cannot apply to a later one, also not at the same address.
//! A link without an element in `policies` reaches nothing.

use std::net::Ipv4Addr;

use sys::{SysError, errno, netlink};

use super::{
    conntrack::{self, Flow},
    link_names,
    nftables::{Changes, Element, Expression, Found, Table, Verdict, chain_of_rule, found},
    rules,
    socket::Socket,
};
use crate::spec::{
    AddressRange, AllowList, JailId, JailNetwork, LEARNED_AT_ONCE, Learned, Protocol, Reach,
};

/// What `nft` calls an address, and the same with a protocol and a port: numbers of its own for the
/// types of a set's keys, and the bytes of such a key in the kernel.
const ADDRESS: (u32, u32) = (7, 4);
const ADDRESS_AND_SERVICE: (u32, u32) = (7 << 12 | 12 << 6 | 13, 12);

/// The policies of one node's jails.
#[derive(Debug)]
pub(super) struct Policies {
    socket: Socket,
    table: Table,
    node: String,
    gateway: Ipv4Addr,
}

/// The names of what an allow-list is made of.
struct Names {
    chain: String,
    /// Addresses that are reached with all they have.
    any: String,
    /// Addresses of which one port is reached.
    port: String,
}

impl Names {
    fn of(jail: JailId, revision: u64) -> Self {
        Self::of_suffix(&format!("{jail}_{revision}"))
    }

    /// Of the list whose chain is called so.
    fn of_chain(chain: &str) -> Option<Self> {
        chain.strip_prefix("list_").map(Self::of_suffix)
    }

    fn of_suffix(suffix: &str) -> Self {
        Self {
            chain: format!("list_{suffix}"),
            any: format!("any_{suffix}"),
            port: format!("port_{suffix}"),
        }
    }
}

impl Policies {
    pub(super) fn open(node: &str, gateway: Ipv4Addr) -> Result<Self, SysError> {
        Ok(Self {
            socket: Socket::open(netlink::Family::NETFILTER)?,
            table: Table(rules::table_name(node)),
            node: node.to_owned(),
            gateway,
        })
    }

    /// Whether the node's table came of the rules with this mark, and has them all.
    pub(super) fn has_rules(&self, mark: &str) -> Result<bool, SysError> {
        if self.socket.find(self.table.get_chain(mark))?.is_none() {
            return Ok(false);
        }
        let mut missing = rules::counts();
        for body in self.socket.list(self.table.list_rules())? {
            if let Some(left) = chain_of_rule(&body).and_then(|chain| missing.get_mut(chain)) {
                *left = left.saturating_sub(1);
            }
        }
        Ok(missing.values().all(|left| *left == 0))
    }

    /// The links that have an address, with it; in no order.
    pub(super) fn addresses(&self) -> Result<Vec<(String, Ipv4Addr)>, SysError> {
        let answers = self.socket.list(self.table.list_elements(rules::ADDRESSES))?;
        let elements = answers.iter().flat_map(|body| found(body));
        Ok(elements
            .filter_map(|element| Some((element.link()?.to_owned(), element.address()?)))
            .collect())
    }

    /// Puts what a jail may reach in force, in one step, and ends connections that it does not
    /// allow. Nothing happens if it is in force already.
    pub(super) fn admit(&self, jail: JailId, network: &JailNetwork) -> Result<(), SysError> {
        let links = self.links(jail);
        let before = self.policy(&links)?;
        let after = match &network.reach {
            Reach::Internet => Verdict::Accept,
            Reach::Nothing => Verdict::Goto(rules::REFUSE.to_owned()),
            Reach::Listed(list) => Verdict::Goto(Names::of(jail, list.revision).chain),
        };
        if before.as_ref() != Some(&after) {
            let mut changes = self.table.changes();
            if let Reach::Listed(list) = &network.reach {
                self.add_list(&mut changes, &Names::of(jail, list.revision), list);
            }
            if let Some(before) = &before {
                remove_policy(&mut changes, &links, before);
            }
            let policy = |link: &String| Element::of_link(link).with_verdict(after.clone());
            changes.add(rules::POLICIES, &links.iter().map(policy).collect::<Vec<_>>());
            let address = |link: &String| Element::of_link(link).with_address(network.address);
            changes.add(rules::ADDRESSES, &links.iter().take(1).map(address).collect::<Vec<_>>());
            self.make(changes)?;
        } else if network.reach != Reach::Nothing {
            return Ok(());
        }
        match (&before, &network.reach) {
            // It was not connected before, or stays so with everything.
            (None, _) | (_, Reach::Internet) => Ok(()),
            (Some(_), Reach::Nothing) => self.cut(network.address, |_| false),
            (Some(_), Reach::Listed(list)) => self.cut(network.address, |flow| {
                let Some(to) = flow.destination() else { return false };
                let service = flow.service();
                to == self.gateway
                    || list.ranges.iter().any(|range| range.admits(to, service))
                    || list.learned.iter().any(|learned| learned.admits(to, service))
            }),
        }
    }

    /// Lets the jail open connections to these addresses for a while, if the list with this revision
    /// is in force. False: it is not.
    pub(super) fn learn(
        &self,
        jail: JailId,
        revision: u64,
        learned: &[Learned],
    ) -> Result<bool, SysError> {
        let names = Names::of(jail, revision);
        let in_force = self.policy(&self.links(jail))?;
        if in_force != Some(Verdict::Goto(names.chain.clone())) {
            return Ok(false);
        }
        let mut changes = self.table.changes();
        let (any, port) = elements(learned);
        changes.renew(&names.any, &any);
        changes.renew(&names.port, &port);
        match self.make(changes) {
            // Another policy came between.
            Err(error) if error.errno == errno::ENOENT => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Packets that were refused to the jail since it was started.
    pub(super) fn refused(&self, jail: JailId) -> Result<u64, SysError> {
        let packets = |link: &String| self.element(rules::REFUSED, link, |it| it.packets());
        let packets = self.links(jail).iter().map(packets).collect::<Result<Vec<_>, _>>()?;
        Ok(packets.into_iter().flatten().sum())
    }

    /// Leaves nothing of a jail whose processes have ended. Safe to repeat.
    ///
    /// First the policy, so that what is still on its way makes no new connection; then the
    /// connections; and last the address, without which nobody would know which they are.
    pub(super) fn release(&self, jail: JailId) -> Result<(), SysError> {
        let links = self.links(jail);
        let Some(named) = links.first() else { return Ok(()) };
        let address = self.element(rules::ADDRESSES, named, |element| element.address())?;
        let Some(address) = address else { return Ok(()) };
        if let Some(policy) = self.policy(&links)? {
            let mut changes = self.table.changes();
            remove_policy(&mut changes, &links, &policy);
            self.make(changes)?;
        }
        let mut changes = self.table.changes();
        let connected = self.those_in(rules::CONNECTED, &links)?;
        if !connected.is_empty() {
            self.cut(address, |_| false)?;
            changes.remove(rules::CONNECTED, &connected);
        }
        for counted in [rules::REFUSED, rules::FLOWS] {
            changes.remove(counted, &self.those_in(counted, &links)?);
        }
        changes.remove(rules::ADDRESSES, &[Element::of_link(named)]);
        self.make(changes)
    }

    /// The names that the jail's link can have; the first is the one that it is known by.
    fn links(&self, jail: JailId) -> Vec<String> {
        link_names(&self.node, jail).collect()
    }

    /// The policy of these links of one jail: all of them have it, or none.
    fn policy(&self, links: &[String]) -> Result<Option<Verdict>, SysError> {
        let Some(named) = links.first() else { return Ok(None) };
        self.element(rules::POLICIES, named, |element| element.verdict())
    }

    /// Which of the links a set has.
    fn those_in(&self, set: &str, links: &[String]) -> Result<Vec<Element>, SysError> {
        let mut found = Vec::new();
        for link in links {
            if self.element(set, link, |_| Some(()))?.is_some() {
                found.push(Element::of_link(link));
            }
        }
        Ok(found)
    }

    /// Ends the connections that `address` has opened, but for those that `may_stay`: what still
    /// comes of the others counts as a first packet, and the rules decide about it.
    fn cut(&self, address: Ipv4Addr, may_stay: impl Fn(&Flow) -> bool) -> Result<(), SysError> {
        let flows = self.socket.list(conntrack::list(address))?;
        for flow in flows.into_iter().map(Flow::of).filter(|flow| !may_stay(flow)) {
            match self.socket.ask(flow.forget()) {
                // It has ended by itself.
                Err(error) if error.errno == errno::ENOENT => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// What `read` finds in the element of a set that is named by a link.
    fn element<T>(
        &self,
        set: &str,
        link: &str,
        read: impl Fn(Found<'_>) -> Option<T>,
    ) -> Result<Option<T>, SysError> {
        let answer = self.socket.find(self.table.get_element(set, &Element::of_link(link)))?;
        Ok(answer.and_then(|body| found(&body).find_map(read)))
    }

    fn make(&self, changes: Changes<'_>) -> Result<(), SysError> {
        let (messages, answers) = changes.finish();
        self.socket.ask_all(&messages, answers)
    }

    /// Makes the chain of an allow-list and what it looks things up in.
    fn add_list(&self, changes: &mut Changes<'_>, names: &Names, list: &AllowList) {
        use Expression::{Decide, Destination, Equals, In, Port, Protocol};
        let size = u32::try_from(LEARNED_AT_ONCE).unwrap_or(u32::MAX);
        changes.add_set(&names.any, ADDRESS, size);
        changes.add_set(&names.port, ADDRESS_AND_SERVICE, size);
        let now = list.learned.iter().filter(|learned| learned.seconds > 0);
        let (any, port) = elements(now);
        changes.add(&names.any, &any);
        changes.add(&names.port, &port);
        changes.add_chain(&names.chain);
        let mut add = |expressions: &[Expression]| changes.add_rule(&names.chain, expressions);
        // Only questions for names come here with this destination, see `to_host`.
        let gateway = self.gateway.octets().to_vec();
        add(&[Destination(0), Equals(0, gateway), Decide(Verdict::Accept)]);
        add(&[Destination(0), In(0, names.any.clone()), Decide(Verdict::Accept)]);
        let port = In(0, names.port.clone());
        add(&[Destination(0), Protocol(1), Port(2), port, Decide(Verdict::Accept)]);
        for range in &list.ranges {
            add_range(&mut add, range);
        }
        add(&[Decide(Verdict::Goto(rules::REFUSE.to_owned()))]);
    }
}

/// One rule per protocol, because a port means something else in each.
fn add_range(add: &mut impl FnMut(&[Expression]), range: &AddressRange) {
    use Expression::{Decide, Destination, Equals, Mask, Port};
    let addresses = [
        Destination(0),
        Mask(0, range.mask().to_be_bytes()),
        Equals(0, range.base.octets().to_vec()),
    ];
    let Some(port) = range.port else {
        return add(&[&addresses[..], &[Decide(Verdict::Accept)]].concat());
    };
    for protocol in Protocol::ALL {
        if range.protocol.is_none_or(|only| only == protocol) {
            let service = [
                Expression::Protocol(0),
                Equals(0, vec![protocol.number()]),
                Port(0),
                Equals(0, port.to_be_bytes().to_vec()),
                Decide(Verdict::Accept),
            ];
            add(&[&addresses[..], &service[..]].concat());
        }
    }
}

fn remove_policy(changes: &mut Changes<'_>, links: &[String], policy: &Verdict) {
    let of_link = |link: &String| Element::of_link(link);
    changes.remove(rules::POLICIES, &links.iter().map(of_link).collect::<Vec<_>>());
    let Verdict::Goto(chain) = policy else { return };
    if let Some(names) = Names::of_chain(chain) {
        changes.remove_chain(&names.chain);
        changes.remove_set(&names.any);
        changes.remove_set(&names.port);
    }
}

/// What the two sets of a list hold: addresses, and addresses with a service.
fn elements<'a>(learned: impl IntoIterator<Item = &'a Learned>) -> (Vec<Element>, Vec<Element>) {
    let (mut any, mut port) = (Vec::new(), Vec::new());
    for Learned { address, service, seconds } in learned {
        let key = address.octets();
        match service {
            None => any.push(Element::of(key).lasting(*seconds)),
            Some((protocol, number)) => {
                let [high, low] = number.to_be_bytes();
                let service = [protocol.number(), 0, 0, 0, high, low, 0, 0];
                let key = [&key[..], &service].concat();
                port.push(Element::of(key).lasting(*seconds));
            }
        }
    }
    (any, port)
}
