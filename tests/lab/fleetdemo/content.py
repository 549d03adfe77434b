# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the demo puts into its instances, and how it reads it back: scripts for the guest's and the host's own shell.

Nothing in here knows the collection: the proof must not go through the code that it is about.
"""

from __future__ import annotations

SHOP, NEIGHBOUR, SNAPSHOT, TWIN = "shop", "neighbour", "before-the-sale", "shop-as-it-was"
EXPIRY = "30d"

# Run in the guest: busybox's shell, as root of an unprivileged container.
FILL = r"""
set -e
mkdir -p /srv/shop/orders /srv/shop/media /home/guest/notes /var/spool/drop
n=0
while [ $n -lt 400 ]; do
  echo "order $n: $((n * 7919 % 1000)) pieces" > /srv/shop/orders/$n.txt
  chown $((1000 + n % 7)):$((2000 + n % 5)) /srv/shop/orders/$n.txt
  chmod 6$((n % 2))$((4 + n % 4))0 /srv/shop/orders/$n.txt
  n=$((n + 1))
done
dd if=/dev/urandom of=/srv/shop/media/picture.raw bs=1M count=16 2>/dev/null
dd if=/dev/urandom of=/srv/shop/media/sparse.img bs=1k count=64 seek=8192 2>/dev/null
ln /srv/shop/media/picture.raw /srv/shop/media/picture-again.raw
ln -s ../media/picture.raw /srv/shop/orders/picture
mkfifo -m 620 /srv/shop/queue
cp /bin/busybox /srv/shop/tool && chmod 4755 /srv/shop/tool
chmod 1777 /var/spool/drop
chown 1000:1000 /home/guest/notes
echo "price list of spring" > "/home/guest/notes/grüße & prices.txt"
find /srv /home ! -type l -exec touch -d '2001-02-03 04:05:06' {} +
"""
# After the snapshot the instance goes on living, so that the two differ.
CHANGE = r"""
set -e
echo "price list of the sale" > "/home/guest/notes/grüße & prices.txt"
rm /srv/shop/orders/1?.txt
dd if=/dev/urandom of=/srv/shop/media/new.raw bs=1M count=4 2>/dev/null
find /srv /home ! -type l -newer /home/guest -exec touch -d '2002-03-04 05:06:07' {} +
"""
# One line for each file: type and mode, owners, links, size, name and target; the times; the checksums of the content.
# Directories' sizes are the file system's own business, and resolv.conf is written anew at every start.
# Incus keeps times to the second only (it rounds them), so times are compared where they are whole seconds.
LIST = r"""
export LC_ALL=C
cd /
list() { find bin etc home root sbin srv usr var -xdev ! -path etc/resolv.conf "$@"; }
list -type d -exec stat -c '%A %u:%g %n' {} + | sort -k 3
list ! -type d -exec stat -c '%A %u:%g %h %s %N' {} + | sort -k 5
find srv home ! -type l -exec stat -c '%y %n' {} + | sort -k 4
list -type f -exec sha256sum {} + | sort -k 2
[ srv/shop/media/picture.raw -ef srv/shop/media/picture-again.raw ] && echo "one file, two names"
exit 0
"""

# Run on the host, on an instance's root file system; `user.` attributes pass through a container's mapping unchanged.
_ROOTFS = "/var/lib/incus/storage-pools/default/containers/shop/rootfs"
SET_ATTRIBUTES = f"""
set -e
cd {_ROOTFS}
setfattr -n user.origin -v 'scanned in 2019' srv/shop/media/picture.raw
setfattr -n user.checksum -v 0sAAECAwQFBgc= srv/shop/orders/7.txt
setfattr -n user.owner -v accounting srv/shop
"""
LIST_ATTRIBUTES = f"""
cd {_ROOTFS}
find srv home -print0 | sort -z | xargs -0 getfattr -h -d -m '^user\\.' -e hex
"""
