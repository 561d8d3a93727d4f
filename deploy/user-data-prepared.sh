#!/bin/sh
# User data of VMs made for the warm pool: configure the VM once, then say so by the tag autoscaler:prepared, for which
# the daemon waits where a policy says `refill: {prepared_tag: true}`. Where anything fails no tag is written, and the VM
# never enters the pool: it is deleted after `refill.timeout`, and an event tells.
#
# Set TOOL and what it needs. The VM's own role needs iam-policy-prepared.json. Needs curl and the AWS CLI in the image.
set -eu

TOOL=${TOOL:-ansible}                  # ansible, chef, puppet or command
REPOSITORY=${REPOSITORY:-https://git.example.com/site.git}      # ansible
PLAYBOOK=${PLAYBOOK:-site.yml}                                  # ansible
ATTRIBUTES=${ATTRIBUTES:-/etc/chef/first-boot.json}             # chef
COMMAND=${COMMAND:-/usr/local/sbin/prepare}                     # command: anything else
VERSION=${VERSION:-}                   # shown by `autoscaler pool list`, for example 7.2
IMDS=${IMDS:-http://169.254.169.254}

configure() {
    case $TOOL in
    ansible) ansible-pull --url "$REPOSITORY" "$PLAYBOOK" ;;
    chef) chef-client --once --json-attributes "$ATTRIBUTES" ;;
    puppet)
        # 0: nothing to change; 2: changed; all else failed in part or whole.
        code=0
        puppet agent --onetime --no-daemonize --detailed-exitcodes || code=$?
        [ "$code" -eq 0 ] || [ "$code" -eq 2 ]
        ;;
    command) "$COMMAND" ;;
    *) echo "TOOL is $TOOL; write ansible, chef, puppet or command" >&2 && return 1 ;;
    esac
}

about_me() {
    curl -fsS --retry 5 --max-time 5 -H "X-aws-ec2-metadata-token: $TOKEN" "$IMDS/latest/meta-data/$1"
}

# Not `configure && ...`, within which `set -e` would not hold.
configure

TOKEN=$(curl -fsS --retry 5 --max-time 5 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 300" "$IMDS/latest/api/token")
ID=$(about_me instance-id)
REGION=$(about_me placement/region)
aws ec2 create-tags --region "$REGION" --resources "$ID" --tags \
    "Key=autoscaler:prepared,Value=true" \
    "Key=autoscaler:version,Value=$VERSION" \
    "Key=autoscaler:baked-at,Value=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
