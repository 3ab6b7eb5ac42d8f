# Arguments: the folder where Ansible is, a playbook.
set -e
export ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_INVENTORY_UNPARSED_WARNING=false ANSIBLE_NOCOLOR=1
# amazon.aws tells botocore to verify, which then looks at no other variable.
export AWS_CA_BUNDLE="$REQUESTS_CA_BUNDLE"
exec "$1/bin/ansible-playbook" -e "ansible_python_interpreter=$1/bin/python" "$2"
