#!/usr/bin/env bash
# Installs or upgrades the daemon on a Debian or Ubuntu VM, from the checkout that this script is in.
#
# Every version gets a virtual environment of its own, and `current` points at the one in use, so that an upgrade
# happens as a whole or not at all, and the last version is one link away. What operators wrote is never touched.
# Running it again with nothing new changes nothing.
set -euo pipefail
umask 022
# This runs as root from wherever it is called, and Python would take modules from there before its own.
export PYTHONSAFEPATH=1

usage() {
  cat <<'TEXT'
Usage: deploy/install.sh [--python PATH] [--wheel FILE] [--libvirt] [--no-systemd] [--root DIR] [--link-venv DIR]

  --python PATH    the Python to run on, 3.11 or later (default: python3)
  --wheel FILE     install this wheel instead of building the code of the checkout
  --libvirt        with libvirt-python, which is compiled here; it is also where the settings name libvirt_uris
  --no-systemd     place the unit, but make no user and do not talk to systemd (images, containers)
  --root DIR       put everything below DIR and touch nothing else; needs no root; for trying it out
  --link-venv DIR  use the packages of this virtual environment instead of downloading the locked ones
                   (trials without a network; the same Python version)

Places /opt/autoscaler (code), /etc/autoscaler (settings, policies), autoscaler.service, and the command
/usr/local/bin/autoscaler. See deploy/README.md.
TEXT
}

refuse() {
  echo "install.sh: $1" >&2
  exit "${2:-1}"
}

say() { echo "install.sh: $1"; }

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=python3 wheel='' root='' link_venv='' systemd=yes libvirt=no

while (($#)); do
  case $1 in
    --python | --wheel | --root | --link-venv)
      (($# > 1)) || refuse "$1 needs a value; see --help" 2
      case $1 in
        --python) python=$2 ;;
        --wheel) wheel=$2 ;;
        --root) root=$2 systemd=no ;;
        --link-venv) link_venv=$2 ;;
      esac
      shift 2
      ;;
    --libvirt) libvirt=yes && shift ;;
    --no-systemd) systemd=no && shift ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "$1 is not an option; see --help" 2 ;;
  esac
done

# ── refusals, before anything is written ──────────────────────────────────────────────────────────────────

if [[ -z $root ]] && command -v "$python" >/dev/null; then
  where=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
  case $where in
    /root/* | /home/*)
      refuse "$where is in a home directory, which the unit hides from the daemon; use --python /usr/bin/python3"
      ;;
  esac
fi
[[ -n $root || $EUID -eq 0 ]] ||
  refuse "this needs root, to write to /opt and /etc and to make a user; use sudo, or --root DIR to try it out"
command -v "$python" >/dev/null ||
  refuse "there is no $python; install Python 3.11 or later, or name one with --python PATH"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  refuse "$("$python" --version 2>&1) is too old: 3.11 or later is needed; name another one with --python PATH"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  refuse "$python cannot make virtual environments; install python3-venv (apt-get install python3-venv)"
for file in pyproject.toml requirements.lock autoscaler/__init__.py policies/defaults.yaml simulations/demo/week.zip \
  deploy/autoscaler.service; do
  [[ -f $checkout/$file ]] || refuse "$checkout is not a whole checkout: $file is missing"
done
[[ -z $wheel || -f $wheel ]] || refuse "there is no wheel $wheel"
[[ -z $link_venv || -x $link_venv/bin/python ]] || refuse "$link_venv is not a virtual environment"
if [[ -n $link_venv ]]; then
  # Compiled packages are for one version: another would get as far as its first import.
  series='import sys; print("%d.%d" % sys.version_info[:2])'
  ours=$("$python" -c "$series") linked=$("$link_venv/bin/python" -c "$series")
  [[ $ours == "$linked" ]] ||
    refuse "the packages of $link_venv are for Python $linked, and $python is $ours; use --python $link_venv/bin/python"
fi
if [[ $systemd == yes ]]; then
  [[ -d /run/systemd/system ]] || refuse "systemd does not run here; use --no-systemd for an image or a container"
fi
if [[ -n $root ]]; then
  mkdir -p "$root"
  root=$(cd "$root" && pwd)
fi

home=$root/opt/autoscaler etc=$root/etc/autoscaler

if grep -sE '^libvirt_uris *=' "$etc/autoscaler.toml" | grep -qvE '= *(\[ *\]|"")'; then libvirt=yes; fi
if [[ $libvirt == yes && -z $link_venv ]]; then
  [[ -f $checkout/requirements-libvirt.lock ]] || refuse "$checkout is not a whole checkout: requirements-libvirt.lock is missing"
  pkg-config --exists libvirt 2>/dev/null ||
    refuse "libvirt-python is compiled here; first apt-get install libvirt-dev pkg-config gcc python3-dev"
fi

# ── the code ──────────────────────────────────────────────────────────────────────────────────────────────

release_name() {
  local version digest
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$checkout/pyproject.toml")
  if [[ -n $wheel ]]; then version=$(basename "$wheel" | cut -d- -f2); fi
  digest=$({
    "$python" --version
    echo "$link_venv"
    cd "$checkout"
    sha256sum requirements.lock
    if [[ $libvirt == yes && -z $link_venv ]]; then sha256sum requirements-libvirt.lock; fi
    if [[ -n $wheel ]]; then
      sha256sum <"$wheel"
    else
      find autoscaler policies simulations/demo pyproject.toml README.md LICENSE -type f ! -name '*.pyc' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum
    fi
  } | sha256sum | cut -c1-12)
  echo "$version-$digest"
}

build_release() {
  local release=$1
  local pip=("$release/bin/python" -m pip --disable-pip-version-check --quiet --no-input)
  local venv=("$python" -m venv)
  # Packages that are linked bring pip along, and to unpack another one takes longer than all the rest.
  if [[ -n $link_venv ]] && "$link_venv/bin/python" -c 'import pip' 2>/dev/null; then venv+=(--without-pip); fi
  rm -rf "$release"
  "${venv[@]}" "$release"
  if [[ -n $link_venv ]]; then
    "$(cd "$link_venv" && pwd)/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
      >"$("$release/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/linked.pth"
  else
    "${pip[@]}" install --require-hashes --no-deps -r "$checkout/requirements.lock" ||
      refuse "the locked packages could not be installed, as said above; nothing was switched"
    if [[ $libvirt == yes ]]; then install_libvirt "$release"; fi
  fi
  # The build backend is in the lock: nothing is downloaded that has no hash.
  "${pip[@]}" install --no-index --no-deps --no-build-isolation --force-reinstall "${wheel:-$checkout}"
  "$release/bin/autoscaler" version >/dev/null
  touch "$release/.complete"
}

# What compiles it comes first, so that nothing is downloaded that has no hash.
install_libvirt() {
  local release=$1 lock=$checkout/requirements-libvirt.lock
  local pip=("$release/bin/python" -m pip --disable-pip-version-check --quiet --no-input install --require-hashes --no-deps)
  sed -n '/^setuptools==/,$p' "$lock" >"$release/setuptools.lock"
  { "${pip[@]}" -r "$release/setuptools.lock" && "${pip[@]}" --no-build-isolation -r "$lock"; } ||
    refuse "libvirt-python could not be compiled, as said above; nothing was switched"
}

# Whether there is a policy of a fleet, beside the defaults of all.
has_policies() { compgen -G "$etc/policies/*.yaml" | grep -qv '/defaults\.yaml$'; }

# The new version must understand what the operator wrote, or it is not switched to.
check_configuration() {
  local release=$1
  if [[ -f $etc/autoscaler.toml ]]; then
    AUTOSCALER_CONFIG=$etc/autoscaler.toml "$release/bin/python" -c '
import sys
from autoscaler.errors import ConfigError
from autoscaler.providers.libvirt.binding import binding
from autoscaler.settings import load_settings
try:
    if load_settings().libvirt_uris:
        binding()
except ConfigError as error:
    sys.exit(str(error))
' || refuse "this version does not accept the settings above; nothing was switched"
  fi
  if has_policies; then
    "$release/bin/autoscaler" validate "$etc/policies" ||
      refuse "this version does not accept the policies above; nothing was switched"
  fi
}

switch_to() {
  local name=$1 last old
  last=$(readlink "$home/current" 2>/dev/null || true)
  ln -sfn "releases/$name" "$home/current.new"
  mv -T "$home/current.new" "$home/current"
  [[ $last == "releases/$name" ]] && return
  if [[ -n $last ]]; then say "switched from ${last#releases/}, which stays installed"; fi
  for old in "$home"/releases/*; do
    case releases/$(basename "$old") in
      "releases/$name" | "$last") ;;
      *) rm -rf "$old" ;;
    esac
  done
}

# ── the rest ──────────────────────────────────────────────────────────────────────────────────────────────

make_user() {
  if ! getent passwd autoscaler >/dev/null; then
    useradd --system --user-group --no-create-home --home-dir /var/lib/autoscaler --shell /usr/sbin/nologin \
      --comment 'VM autoscaler' autoscaler
  fi
}

# Readable by the daemon and no further, since settings may hold keys; new files take the folder's group.
protect_configuration() {
  if [[ $systemd == yes ]]; then
    chgrp -R autoscaler "$etc"
    chmod 2750 "$etc" "$etc/policies"
    find "$etc" -type f -exec chmod o-rwx {} +
    if [[ -f $etc/environment ]]; then chown root:root "$etc/environment" && chmod 600 "$etc/environment"; fi
  fi
}

place() {
  install -D -m "$1" "$2" "$3"
}

place_if_missing() {
  if [[ -e $2 ]]; then
    say "kept ${2#"$root"}"
  else
    place 640 "$1" "$2"
  fi
}

# What a command prints becomes a file whole or not at all: what is there stays until it has ended well.
place_output() {
  local mode=$1 file=$2
  shift 2
  mkdir -p "$(dirname "$file")"
  "$@" >"$file.new" || {
    rm -f "$file.new"
    refuse "${file#"$root"} could not be written, as said above; mend that and run this again"
  }
  chmod "$mode" "$file.new"
  mv -T "$file.new" "$file"
}

place_configuration() {
  mkdir -p "$etc/policies"
  place_if_missing "$checkout/deploy/autoscaler.toml" "$etc/autoscaler.toml"
  place_if_missing "$checkout/policies/defaults.yaml" "$etc/policies/defaults.yaml"
  # What this version ships, to compare with after an upgrade.
  place 640 "$checkout/deploy/autoscaler.toml" "$etc/shipped/autoscaler.toml"
  place 640 "$checkout/policies/defaults.yaml" "$etc/shipped/defaults.yaml"
  place_output 644 "$etc/policy.schema.json" "$home/current/bin/autoscaler" policy schema
}

place_command() {
  local wrapper=$root/usr/local/bin/autoscaler completion=$root/usr/local/share/bash-completion/completions/autoscaler
  place_output 755 "$wrapper" cat <<TEXT
#!/bin/sh
# The installed autoscaler, on the settings of this machine where the caller may read them.
if [ -z "\${AUTOSCALER_CONFIG:-}" ] && [ -r $etc/autoscaler.toml ]; then
  export AUTOSCALER_CONFIG=$etc/autoscaler.toml
fi
exec $home/current/bin/autoscaler "\$@"
TEXT
  place_output 644 "$completion" env _AUTOSCALER_COMPLETE=source_bash "$home/current/bin/autoscaler"
}

name=$(release_name)
if [[ -f $home/releases/$name/.complete ]]; then
  say "$name is already there"
else
  say "installing $name on $("$python" --version)"
  mkdir -p "$home/releases"
  build_release "$home/releases/$name"
fi
check_configuration "$home/releases/$name"
if [[ $systemd == yes ]]; then make_user; fi
switch_to "$name"
place_configuration
protect_configuration
place_command
place 644 "$checkout/deploy/autoscaler.service" "$root/etc/systemd/system/autoscaler.service"

if [[ $systemd == yes ]]; then
  systemctl daemon-reload
  systemctl try-restart autoscaler.service
fi
say "done: $("$root/usr/local/bin/autoscaler" version | head -n 1)"
if ! has_policies; then
  say "next: write a policy to ${etc#"$root"}/policies, set aws_region in ${etc#"$root"}/autoscaler.toml, and"
  say "      systemctl enable --now autoscaler"
fi
