// SPDX-License-Identifier: GPL-2.0
/*
 * Express mode: from the device that a packet came in by straight to the next
 * hop of its server, through the route that IPVS has cached for it (compare
 * __ip_vs_get_out_rt() and ip_vs_dr_xmit()) and the neighbour's cached header.
 * At the end, in any mode: whether direct routing may use that route.
 */
#include <linux/inetdevice.h>
#include <net/addrconf.h>
#include <net/arp.h>
#include <net/dst.h>
#include <net/gso.h>
#include <net/ip6_route.h>
#include <net/l3mdev.h>
#include <net/ndisc.h>
#include <net/neighbour.h>
#include <net/route.h>
#include "helpers.h"

/* Whether somebody else has the IP header, too, such as a packet socket. */
static bool mhs_is_shared(const struct sk_buff *skb)
{
	return skb_cloned(skb) &&
	       !skb_clone_writable(skb, sizeof(struct ipv6hdr));
}

/* Bridges show packets that are on their way to another host. */
static bool mhs_is_bridged(const struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_BRIDGE_NETFILTER)
	return skb_ext_exist(skb, SKB_EXT_BRIDGE_NF);
#else
	return false;
#endif
}

/* Routed by a table of its own. Comes by here twice: from the device, and the VRF. */
static bool mhs_is_of_vrf(const struct net_device *dev)
{
	return netif_is_l3_slave(dev) || netif_is_l3_master(dev);
}

/* A mark is given later than here, if at all, and may be that of a service. */
static bool mhs_has_marks(const struct netns_ipvs *ipvs)
{
	return atomic_read(&ipvs->fwm_services[0]) |
	       atomic_read(&ipvs->fwm_services[1]);
}

/*
 * A packet that just came from a device. No candidate is what the stack would
 * have to look at first, or to copy, or what a bridge shows on its way.
 */
u64 mhs_skb_look_early(const struct sk_buff *skb, const struct net *net)
{
	struct netns_ipvs *ipvs = READ_ONCE(net->ipvs);

	if (!ipvs || skb->ipvs_property || skb->pkt_type != PACKET_HOST ||
	    skb->sk || skb_dst(skb) || mhs_is_shared(skb) ||
	    mhs_is_bridged(skb) || mhs_is_of_vrf(skb->dev) ||
	    mhs_has_marks(ipvs))
		return 0;
	return mhs_look(skb, ipvs);
}

/*
 * Changes whenever a route does. For IPv6 one number is of those that come, the
 * other of those that go.
 */
u32 mhs_net_routes(const struct net *net, bool v6)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (v6)
		return rt_genid_ipv6(net) +
		       READ_ONCE(net->ipv6.rt6_stats->fib_discarded_routes);
#endif
	return rt_genid_ipv4(net);
}

#if IS_ENABLED(CONFIG_IPV6)
/* An address can be kept while its device is down, and is not routed to then. */
static bool mhs_is_local_v6(struct net *net, const struct in6_addr *addr)
{
	struct rt6_info *rt = rt6_lookup(net, addr, NULL, 0, NULL, 0);
	bool local = rt && rt->rt6i_flags & RTF_LOCAL;

	ip6_rt_put(rt);
	return local;
}
#endif

/* Whether packets to @addr are for this host. */
bool mhs_net_is_local(struct net *net, bool v6, const union nf_inet_addr *addr)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (v6)
		return mhs_is_local_v6(net, &addr->in6);
#endif
	return inet_addr_type(net, addr->ip) == RTN_LOCAL;
}

static struct neighbour *mhs_next_hop_v4(struct dst_entry *dst, __be32 addr)
{
	const struct rtable *rt = dst_rtable(dst);

	if (rt->rt_flags & (RTCF_LOCAL | RTCF_BROADCAST | RTCF_MULTICAST) ||
	    rt->rt_gw_family == AF_INET6)
		return NULL;
	if (rt->rt_gw_family == AF_INET)
		addr = rt->rt_gw4;
	return __ipv4_neigh_lookup_noref(dst_dev_rcu(dst), (__force u32)addr);
}

static struct neighbour *mhs_next_hop_v6(struct dst_entry *dst,
					 const struct in6_addr *addr)
{
	const struct rt6_info *rt = dst_rt6_info(dst);

	if (rt->rt6i_flags & RTF_LOCAL || dst_dev_rcu(dst)->flags & IFF_LOOPBACK)
		return NULL;
	return __ipv6_neigh_lookup_noref(dst_dev_rcu(dst),
					 rt6_nexthop(rt, addr));
}

/* Whether one more hop is allowed. */
static bool mhs_hop(struct sk_buff *skb, bool v6)
{
	if (v6) {
		if (ipv6_hdr(skb)->hop_limit <= 1)
			return false;
		ipv6_hdr(skb)->hop_limit--;
	} else {
		if (ip_hdr(skb)->ttl <= 1)
			return false;
		ip_decrease_ttl(ip_hdr(skb));
	}
	return true;
}

/*
 * Sends a plain packet to @dest. Returns false, with @skb as it was, if @dest is
 * of another family, routes are not those of mhs_net_routes() == @routes any
 * more, the one to @dest or its neighbour are not ready, or the packet is too
 * large or at its last hop: the long way knows what to do.
 */
bool mhs_forward(struct sk_buff *skb, const struct ip_vs_dest *dest,
		 const struct net *net, u32 routes, bool v6)
{
	const struct ip_vs_dest_dst *way = rcu_dereference(dest->dest_dst);
	struct neighbour *neigh;
	struct net_device *dev;
	struct dst_entry *dst;
	unsigned int mtu;

	if (!way || dest->af != (v6 ? AF_INET6 : AF_INET) ||
	    mhs_net_routes(net, v6) != routes)
		return false;
	dst = way->dst_cache;
	if (!dst_check(dst, way->dst_cookie) || dst_xfrm(dst) || dst->lwtstate)
		return false;
	dev = dst_dev_rcu(dst);
	mtu = dst_mtu(dst);
	if (unlikely(skb->len > mtu) &&
	    !(skb_is_gso(skb) && skb_gso_validate_network_len(skb, mtu)))
		return false;
	if (unlikely(skb_headroom(skb) < LL_RESERVED_SPACE(dev)))
		return false;
	neigh = v6 ? mhs_next_hop_v6(dst, &dest->addr.in6) :
		     mhs_next_hop_v4(dst, dest->addr.ip);
	if (!neigh || !(READ_ONCE(neigh->nud_state) & NUD_VALID) ||
	    !mhs_hop(skb, v6))
		return false;
	skb_forward_csum(skb);
	skb_clear_tstamp(skb);
	skb->dev = dev;
	skb_dst_set_noref(skb, dst);
	neigh_output(neigh, skb, false);
	return true;
}

static void mhs_dest_dst_free(struct rcu_head *head)
{
	struct ip_vs_dest_dst *way = container_of(head, struct ip_vs_dest_dst,
						  rcu_head);

	dst_release(way->dst_cache);
	kfree(way);
}

/* Compare __ip_vs_dst_cache_reset(), which is not exported. */
static void mhs_dest_forget_route(struct ip_vs_dest *dest,
				  const struct ip_vs_dest_dst *way)
{
	struct ip_vs_dest_dst *old;

	spin_lock_bh(&dest->dst_lock);
	old = rcu_dereference_protected(dest->dest_dst,
					lockdep_is_held(&dest->dst_lock));
	if (old == way) {
		RCU_INIT_POINTER(dest->dest_dst, NULL);
		call_rcu(&old->rcu_head, mhs_dest_dst_free);
	}
	spin_unlock_bh(&dest->dst_lock);
}

/* Whether a route says whom to ask for, whatever the packet's address. */
static bool mhs_knows_next_hop(const struct dst_entry *dst, u16 af)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (af == AF_INET6)
		return dst_rt6_info(dst)->rt6i_flags &
			       (RTF_GATEWAY | RTF_CACHE | RTF_LOCAL) ||
		       dst_dev_rcu(dst)->flags & IFF_LOOPBACK;
#endif
	return dst_rtable(dst)->rt_gw_family ||
	       dst_rtable(dst)->rt_flags &
		       (RTCF_LOCAL | RTCF_BROADCAST | RTCF_MULTICAST);
}

/*
 * Before direct routing. All entries of a server share one route, which is made
 * for whatever packet comes first. That of a tunnel, or of one that gets another
 * address, need not say who the next hop is (IP_VS_RT_MODE_KNOWN_NH): by it, a
 * neighbour would be asked for the virtual address, and not answer. When the
 * method of a server changes, packets of before and after come side by side.
 */
void mhs_dest_check_route(struct ip_vs_dest *dest)
{
	const struct ip_vs_dest_dst *way = rcu_dereference(dest->dest_dst);

	if (unlikely(way && !mhs_knows_next_hop(way->dst_cache, dest->af)))
		mhs_dest_forget_route(dest, way);
}

/*
 * No route to @dest, and no reference to it but that of its service: no entry,
 * and nothing else by which packets go there.
 */
bool mhs_dest_is_untouched(const struct ip_vs_dest *dest)
{
	return !rcu_access_pointer(dest->dest_dst) &&
	       refcount_read(&dest->refcnt) == 1;
}
