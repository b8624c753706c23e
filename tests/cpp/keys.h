/* Keys for tests alone. C and C++ include this. */
#pragma once

#define TEST_PRIVATE_KEY                                               \
  "-----BEGIN PRIVATE KEY-----\n"                                      \
  "MC4CAQAwBQYDK2VwBCIEILVbZ77+g+VMCwtKbrNHc34OgGetDlB5qeIm1L4RrGVo\n" \
  "-----END PRIVATE KEY-----\n"

#define TEST_PUBLIC_KEY                                            \
  "-----BEGIN PUBLIC KEY-----\n"                                   \
  "MCowBQYDK2VwAyEAdBIYT05mKTdSSmu5Wxzc/Xj3xOpVkEp8ezWbdN0dXJ4=\n" \
  "-----END PUBLIC KEY-----\n"

#define OTHER_PUBLIC_KEY                                           \
  "-----BEGIN PUBLIC KEY-----\n"                                   \
  "MCowBQYDK2VwAyEA8QIAUHrHpnGDvxkly71YTR3JnktN8HSdEMvKzQMsBpU=\n" \
  "-----END PUBLIC KEY-----\n"
